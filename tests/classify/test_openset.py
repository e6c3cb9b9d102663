import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tiny_features import blobs

from classify import openset
from classify.openset import draw_reference, fit_open_set
from extract.errors import FitError


def plain(rows: np.ndarray, query: np.ndarray, k: int) -> float:
    """The distance of one row to its k-th nearest of rows, both of length 1."""
    rows, query = (each.astype(np.float64) / np.linalg.norm(each, axis=-1, keepdims=True) for each in (rows, query))
    return sorted(math.dist(row, query) for row in rows)[k - 1]


def test_distances_are_those_of_a_loop():
    y = np.arange(60) % 3
    X, new = blobs(y, 8) + 0.1, blobs(y[:9], 8, seed=1) + 0.1
    found = fit_open_set(X, y, None, n_seen=60)
    assert (found.k, found.n_seen, found.rows.dtype) == (10, 60, np.float16)
    assert found.distances(new) == pytest.approx([plain(X, row, 10) for row in new], abs=2e-3)
    assert found.novelty(new) == pytest.approx(found.distances(new) / found.threshold)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_threshold_leaves_out_the_rows_own_group(grouped):
    rng = np.random.default_rng(0)
    n, size = 120, 6
    groups = np.repeat(np.arange(n // size), size) if grouped else None
    centres = rng.normal(size=(n // size, 5))
    X = np.repeat(centres, size, axis=0) + rng.normal(size=(n, 5)) * 0.01
    found = fit_open_set(X.astype(np.float32), np.zeros(n, dtype=int), groups, n_seen=n)
    own = np.arange(n) if groups is None else groups
    away = [plain(X[own != own[row]], X[row], found.k) for row in range(n)]
    assert found.threshold == pytest.approx(np.quantile(away, 0.95, method="higher"), abs=2e-3)


def test_a_flipped_copy_in_the_same_group_does_not_make_everything_look_new():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(200, 20)), 20, axis=0).astype(np.float32)
    groups = np.repeat(np.arange(200), 20)
    new = rng.normal(size=(300, 20)).astype(np.float32)
    y = np.arange(len(X)) % 40  # so that k is 10
    apart, together = (fit_open_set(X, y, which, n_seen=len(X)).novelty(new) for which in (groups, None))
    assert (apart > 1).mean() < 0.15
    assert (together > 1).all()  # what leaving out only the row itself would have said


def test_new_rows_of_the_same_kind_are_mostly_known_and_others_are_not():
    rng = np.random.default_rng(3)
    y = np.arange(1500) % 3
    X, other = blobs(y, 16, seed=1), np.abs(rng.normal(size=(200, 16))).astype(np.float32) * 9
    at = rng.permutation(1500)
    found = fit_open_set(X[at[:1000]], y[at[:1000]], None, n_seen=1000)
    assert found.k == 18
    assert (found.novelty(X[at[1000:]]) > 1).mean() == pytest.approx(0.05, abs=0.035)
    distances = found.distances(np.concatenate([X[at[1000:]], other]))
    assert roc_auc_score(np.arange(700) >= 500, distances) > 0.95


def test_equal_rows_and_zero_rows_have_a_finite_novelty():
    X = np.ones((30, 4), dtype=np.float32)
    found = fit_open_set(X, np.zeros(30, dtype=int), None, n_seen=30)
    assert found.threshold == openset.SMALLEST
    new = np.array([[2.0, 2, 2, 2], [0, 0, 0, 0]])
    assert found.novelty(new)[0] <= 1
    assert found.distances(new)[1] == pytest.approx(1, abs=1e-3)
    assert found.novelty(np.empty((0, 4))).shape == (0,)


def test_k_is_no_more_than_the_rows_outside_the_largest_group():
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    groups = np.array([0] * 16 + [1, 2, 3, 4])
    assert fit_open_set(X, np.zeros(20, dtype=int), groups, n_seen=20).k == 4
    with pytest.raises(FitError, match="one group"):
        fit_open_set(X, np.zeros(20, dtype=int), np.zeros(20, dtype=int), n_seen=20)


def test_so_many_rows_are_drawn_as_a_bundle_may_hold(monkeypatch):
    assert draw_reference(5, 8, 0).tolist() == [0, 1, 2, 3, 4]
    monkeypatch.setattr(openset, "MAX_ROWS", 50)
    at = draw_reference(1000, 8, seed=1)
    assert len(set(at.tolist())) == 50
    assert (np.diff(at) > 0).all()
    assert at.tolist() == draw_reference(1000, 8, seed=1).tolist() != draw_reference(1000, 8, seed=2).tolist()
    monkeypatch.setattr(openset, "MAX_BYTES", 160)
    assert len(draw_reference(1000, 8, seed=1)) == 10


def test_the_threshold_may_be_found_on_some_of_the_rows(monkeypatch):
    y = np.arange(600) % 3
    X = blobs(y, 8)
    whole = fit_open_set(X, y, None, n_seen=600)
    monkeypatch.setattr(openset, "MAX_QUERIES", 300)
    part = fit_open_set(X, y, None, n_seen=600)
    assert part.threshold != whole.threshold
    assert part.threshold == pytest.approx(whole.threshold, rel=0.2)
    assert (part.rows == whole.rows).all()
