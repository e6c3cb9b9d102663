"""Ridge regression on a GPU: the same functions over torch, here on the CPU, give what NumPy gives."""

import numpy as np
import pytest

from classify.probe import backend
from classify.probe.backend import torch_backend
from classify.probe.loo import loo_path
from classify.probe.memo import Kept, memo
from classify.probe.moments import scalers
from classify.probe.normal import of_folds
from classify.probe.ridge import RidgePath, fit_ridge, fold_path, scan, targets
from classify.probe.rows import ArrayRows, array_rows
from classify.probe.transforms import TRANSFORMS, rowwise
from extract.errors import FitError

pytestmark = pytest.mark.usefixtures("gpu")

TALL, WIDE = (90, 6), (24, 40)


def problem(shape: tuple[int, int], k: int = 3) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Rows of k overlapping classes, float32, in three folds; a feature and a row are all 0, a class is rare."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(shape[0]) % k)
    X = rng.normal(size=shape) * np.linspace(0.5, 4, shape[1]) + rng.normal(size=(k, shape[1]))[y] + 20
    X[:, 1], X[3] = 0, 0
    y[0] = k
    parts = np.array_split(rng.permutation(shape[0]), 3)
    return X.astype(np.float32), y, [(np.concatenate(parts[:i] + parts[i + 1 :]), parts[i]) for i in range(3)]


def same(one: RidgePath, other: RidgePath) -> None:
    """Hold two paths against each other: penalties, every answer, and some scores."""
    np.testing.assert_allclose(one.lams, other.lams, rtol=1e-13)
    np.testing.assert_array_equal(one.predicted, other.predicted)
    for number in range(0, 31, 10):
        np.testing.assert_allclose(one.scores(number), other.scores(number), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_folds_are_judged_as_by_numpy(shape, transform):
    X, y, folds = problem(shape)
    rows, Y = ArrayRows(rowwise(transform, X), block_bytes=7 * 4 * shape[1]), targets(y, 4)
    gpu, cpu = (fold_path(rows, Y, folds, None, transform, device) for device in ("cuda", "cpu"))
    same(gpu, cpu)


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("size", [None, 1, 3])
@pytest.mark.parametrize("transform", ["std", "l2"])
def test_rows_and_groups_are_left_out_as_by_numpy(shape, size, transform):
    X, y, folds = problem(shape)
    groups = None if size is None else np.arange(shape[0]) // size
    rows, Y = array_rows(rowwise(transform, X)), targets(y, 4)
    gpu, cpu = (scan(rows, Y, folds, groups, transform, device=device) for device in ("cuda", "cpu"))
    assert gpu.kind == cpu.kind
    same(gpu, cpu)


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_final_fit_is_that_of_numpy(shape, transform):
    X, y, _ = problem(shape)
    rows, Y = ArrayRows(rowwise(transform, X), block_bytes=7 * 4 * shape[1]), targets(y, 4)
    gpu, cpu = (fit_ridge(rows, Y, 3.0, transform, device) for device in ("cuda", "cpu"))
    for name in ("mean", "scale", "coef", "intercept"):
        found, expected = getattr(gpu, name), getattr(cpu, name)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_what_a_gpu_decomposed_serves_the_cores_too(tmp_path):
    X, y, _ = problem(TALL)
    kept = Kept(memo(tmp_path), {"rows": "these"})
    gpu, cpu = (loo_path(array_rows(X), targets(y, 4), "std", kept=kept, device=name) for name in ("cuda", "cpu"))
    assert len(list(tmp_path.rglob("*.fit"))) == 1
    same(gpu, cpu)


def test_scalers_are_those_of_numpy():
    X, _, folds = problem(TALL)
    masks = np.array([np.isin(np.arange(90), train) for train, _ in folds])
    with torch_backend("cpu") as device:
        found = scalers(array_rows(X), masks, "std", device)
    expected = scalers(array_rows(X), masks, "std")
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-11)


def test_gram_matrices_that_a_gpu_does_not_hold_are_refused(monkeypatch):
    X, y, folds = problem(TALL)
    monkeypatch.setattr(backend.Backend, "_free_bytes", lambda self: 7 * 6 * 6 * 8 - 1)
    with torch_backend("cpu") as device, pytest.raises(FitError, match=r"0.0 GB are free.*--device cpu"):
        of_folds(array_rows(X), targets(y, 4), folds, "std", device)
    with pytest.raises(FitError, match="--device cpu"):
        fit_ridge(array_rows(np.tile(X, (1, 2))), targets(y, 4), 1.0, "std", "cuda")
