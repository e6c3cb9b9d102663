"""Two processes that train together, joined by gloo on the loopback, against one that does all by itself."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from test_loop import EVERYTHING, assert_same, tight
from tiny_training import TinyExamples, silent, tiny_job, tiny_network
from torch import nn

from classify.finetune.examples import draws
from classify.finetune.job import Device, Outcome
from classify.finetune.loop import train
from classify.finetune.ranks import Ranks
from extract.errors import TrainingError

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
COMMAND = "import sys, test_ranks; test_ranks.work(int(sys.argv[1]), sys.argv[2])"
AVERAGED = {**EVERYTHING, "bn": "affine", "mixup": 0.0}
"""All but what sees a process's part of a batch alone: mixing, and BatchNorm that trains."""
ALIKE: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged": AVERAGED,
    "uneven": {"batch_size": 7, "class_weight": "balanced"},
    "diverging": {"rate": 1e30, "clip_norm": 0.0, "trial": True},
}
OTHERWISE = {"everything": EVERYTHING, "moving": {"bn": "train", "ema": 0.75}}
TOO_LARGE = "too large"


def trained(folder: Path, *, network=None, **changes: Any) -> Outcome:
    examples, bn = TinyExamples(), changes.get("bn", "frozen")
    network = network or tiny_network(bn=bn, dropout=0.0)
    return train(network, examples, tiny_job(examples, **changes), Device(), folder, silent())


def work(rank: int, folder: str) -> None:
    """Be one of two: train in all these ways, and in the end on more than the memory of the second takes."""
    path = Path(folder)
    dist.init_process_group("gloo", store=dist.FileStore(str(path / "store"), 2), rank=rank, world_size=2)
    found = {name: vars(trained(path / name, **changes)) for name, changes in {**ALIKE, **OTHERWISE}.items()}
    try:
        small = tight(tiny_network(dropout=0.0), 4 - rank, torch.OutOfMemoryError("CUDA out of memory"))
        trained(path / TOO_LARGE, network=small)
    except TrainingError as error:
        found[TOO_LARGE] = str(error)
    except RuntimeError:  # of gloo: the other one is gone
        found[TOO_LARGE] = ""
    torch.save(found, path / f"{rank}.pt")
    os._exit(0)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict[str, Any]]:
    """What came of it in each of two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    paths = os.pathsep.join(map(str, (HERE, HERE.parents[2])))
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback}
    command = [sys.executable, "-c", COMMAND]
    started = [subprocess.Popen([*command, str(rank), str(folder)], env=environment) for rank in range(2)]
    try:
        assert all(process.wait() == 0 for process in started)
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_come_to_what_one_does_up_to_roundings(both, tmp_path, name):
    expected, got = trained(tmp_path, **ALIKE[name]), Outcome(**both[0][name])
    assert (got.step, got.best_step, got.diverged) == (expected.step, expected.best_step, expected.diverged)
    for row, other in zip(got.history, expected.history, strict=True):
        assert timeless(row) == pytest.approx(timeless(other), rel=1e-4, abs=1e-5)
    for key, value in expected.state.items():  # sums of float32 in another order, twelve steps of them
        torch.testing.assert_close(got.state[key], value, atol=1e-5, rtol=1e-4)


def timeless(row: dict[str, Any]) -> dict[str, float]:
    return {**row, "seconds": 0.0, "loss": row["loss"] or 0.0}


@pytest.mark.parametrize("name", [*ALIKE, *OTHERWISE])
def test_each_process_comes_to_the_same_bits(both, name):
    assert_same(Outcome(**both[1][name]), Outcome(**both[0][name]))


def test_statistics_of_batchnorm_move_with_what_both_see(both, tmp_path):
    expected, got = trained(tmp_path, **OTHERWISE["moving"]), Outcome(**both[0]["moving"])
    means = [key for key in expected.state if key.endswith("running_mean")]
    still = tiny_network().state()
    assert means
    for key in means:
        moved = (expected.state[key] - still[key]).norm()
        assert (got.state[key] - expected.state[key]).norm() < 0.2 * moved, "of four images at a time, not of eight"


def test_one_whose_memory_does_not_suffice_says_so_and_the_other_is_not_left_waiting(both):
    assert both[0][TOO_LARGE] == ""
    assert both[1][TOO_LARGE].startswith("training: the memory does not suffice for the 4 images of one process")
    assert "--batch-size" in both[1][TOO_LARGE]


def test_alone_there_is_nobody_to_tell():
    ranks, value, network = Ranks.here(), torch.ones(2), nn.Linear(1, 1)
    ranks.mean([value])
    assert (ranks, ranks.first, ranks.alone) == (Ranks(0, 1), True, True)
    assert torch.equal(ranks.sum(value), torch.ones(2))
    assert ranks.of_first("mine") == "mine"
    assert ranks.joined(network) is network


@pytest.mark.parametrize("size", [1, 2, 3])
def test_together_the_processes_see_each_batch_once_and_in_order(size):
    whole = draws(10, batch_size=7, seed=1, start=3)
    parts = [draws(10, batch_size=7, seed=1, start=3, ranks=Ranks(rank, size)) for rank in range(size)]
    for _ in range(5):
        expected, got = next(whole), [next(part) for part in parts]
        for which in (0, 1):
            assert np.array_equal(np.concatenate([each[which] for each in got]), expected[which])


def test_on_gpus_batchnorm_that_trains_is_made_one_that_sees_all_and_keeps_its_weights():
    network = tiny_network(bn="train")
    before, names = network.state(), list(dict(network.named_parameters()))
    Ranks(0, 2).synchronise(network.tail, torch.device("cpu"))
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
    Ranks(0, 2).synchronise(network.tail, torch.device("cuda"))
    assert all(isinstance(module, nn.SyncBatchNorm) for module in network.tail.modules() if hasattr(module, "momentum"))
    assert list(dict(network.named_parameters())) == names
    assert all(torch.equal(value, before[name]) for name, value in network.state().items())
