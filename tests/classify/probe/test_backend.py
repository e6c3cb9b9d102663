import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from classify.probe import backend
from classify.probe.backend import HOST, numpy_backend, open_backend, open_serial, pick_device, torch_backend
from classify.probe.rows import ArrayRows
from extract.errors import OptionError


@pytest.mark.parametrize(("gpus", "built", "picked"), [(0, True, "cpu"), (2, True, "cuda"), (2, False, "cpu")])
def test_auto_takes_a_gpu_that_torch_can_use(monkeypatch, gpus, built, picked):
    monkeypatch.setattr(backend, "gpu_count", lambda: gpus)
    monkeypatch.setattr(backend, "_torch_has_cuda", lambda: built)
    assert pick_device("auto") == picked


@pytest.mark.parametrize("device", ["cuda:1", "cuda:7"])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, device):
    monkeypatch.setattr(backend, "gpu_count", lambda: 1)
    assert pick_device("cuda:0") == "cuda:0"
    with pytest.raises(OptionError, match="1 found"):
        pick_device(device)


@pytest.mark.parametrize("device", ["gpu", "cpu:1", "cuda:x", "cuda:-1", ""])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(OptionError, match="no device"):
        pick_device(device)


def test_a_torch_without_a_gpu_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(backend, "gpu_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="torch sees no GPU"), open_backend("cuda"):
        pass


def test_products_on_a_gpu_are_of_whole_float32_even_where_a_network_is_not():
    import torch

    from extract.devices import set_tf32

    set_tf32(True)
    try:
        with torch_backend("cpu"):
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        set_tf32(False)


@pytest.mark.parametrize("device", ["numpy", "torch"])
def test_the_smallest_of_each_row(device):
    values = np.random.default_rng(0).permuted(np.tile(np.arange(20.0, dtype=np.float32), (6, 1)), axis=1)
    with torch_backend("cpu") if device == "torch" else nullcontext(HOST) as found:
        picked, at = found.smallest(found.moved(values), 5)
    assert np.array_equal(np.take_along_axis(values, at, axis=1), picked)
    assert np.array_equal(np.sort(picked, axis=1), np.tile(np.arange(5.0), (6, 1)))


@pytest.mark.parametrize("device", ["numpy", "torch"])
def test_positive_definite_systems_are_solved(device):
    rng = np.random.default_rng(0)
    A, x = rng.normal(size=(6, 9)), rng.normal(size=(6, 2))
    A = A @ A.T
    with torch_backend("cpu") if device == "torch" else nullcontext(HOST) as found:
        solved = found.host(found.solve_positive(found.array(A), found.array(A @ x)))
    assert np.allclose(solved, x, rtol=1e-10)


@pytest.mark.parametrize(("device", "alone"), [("cpu", 1), ("cuda", 1)])
def test_one_product_after_the_other_keeps_the_threads_of_blas(monkeypatch, device, alone):
    monkeypatch.setattr(backend, "pick_device", lambda name: name)
    monkeypatch.setattr(backend, "torch_backend", lambda name: torch_backend("cpu"))
    with threadpool_limits(2, user_api="blas"), open_serial(device) as found:
        assert found.width == alone
        assert {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"} == {2}


def test_the_cpu_needs_no_torch():
    lines = (
        "import sys",
        "from classify.probe.softmax import fit_softmax",
        "from classify.probe.backend import open_backend",
        "from classify.probe.ridge import fit_ridge",
        "from classify.hygiene.near import near_pairs",
        "with open_backend('cpu') as backend: backend.zeros((2, 2))",
        "sys.exit('torch' in sys.modules)",
    )
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False).returncode == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_as_many_pieces_at_once_as_blas_was_to_have_threads(threads):
    with threadpool_limits(threads, user_api="blas"), numpy_backend() as found:
        assert found.width == threads
        assert list(found.map(lambda piece: piece * 2, range(20))) == list(range(0, 40, 2))


def test_blocks_reach_a_device_as_they_are(monkeypatch):
    X = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    rows = ArrayRows(X, block_bytes=4 * 3 * 4)
    for share in (0.6, 0.0):
        monkeypatch.setattr(backend, "RESIDENT_SHARE", share)
        with torch_backend("cpu") as device:
            monkeypatch.setattr(type(device), "_free_bytes", lambda self: 1e9)
            walk = device.blocks(rows)
            for _ in range(2):
                found = list(walk())
                assert [at for at, _ in found] == [slice(0, 4), slice(4, 8), slice(8, 10)]
                assert np.array_equal(np.concatenate([device.host(block) for _, block in found]), X)
