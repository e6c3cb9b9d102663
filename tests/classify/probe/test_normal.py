import numpy as np
import pytest

from classify.probe import memory
from classify.probe.backend import HOST
from classify.probe.normal import coefficients, fold_parts, kernel, of_folds, on_smaller_side, shrinkage
from classify.probe.rows import ArrayRows, array_rows
from extract.errors import FitError

X = np.random.default_rng(0).normal(size=(10, 4)) + 3
Y = np.where(np.arange(10)[:, None] % 2 == np.arange(2), 1, -1)


def test_folds_part_the_rows_so_that_each_trains_on_whole_parts():
    folds = [(np.array([2, 3, 4, 5]), np.array([0, 1])), (np.array([0, 1, 4, 5]), np.array([2, 3]))]
    parts, member = fold_parts(folds, 7)
    assert parts[6] == -1
    for (train, _), inside in zip(folds, member, strict=True):
        assert np.array_equal(np.flatnonzero(np.isin(parts, np.flatnonzero(inside))), train)
    assert member.shape == (2, 3)


def test_the_kernel_of_many_blocks_is_that_of_all_rows():
    mean, scale = X.mean(axis=0), np.array([1.0, 2.0, np.inf, 0.5])
    Z = (X - mean) / scale
    found = kernel(ArrayRows(X, block_bytes=3 * 4 * 8), mean, scale, HOST)
    assert np.allclose(found, Z @ Z.T, rtol=1e-13)


@pytest.mark.parametrize("transform", ["std", "none", "pcaw"])
def test_both_sides_give_the_same_coefficients(transform):
    wide = np.random.default_rng(1).normal(size=(12, 12))
    rows, targets, lams = array_rows(wide), np.sign(np.random.default_rng(2).normal(size=(12, 3))), np.array([0.5, 8])
    between_features = on_smaller_side(rows, targets, transform)
    [prepared] = of_folds(rows, targets, [(np.arange(12), np.array([0]))], transform, HOST)
    between_rows = prepared()
    assert between_features.rows is None
    narrow = of_folds(rows, targets, [(np.arange(11), np.array([11]))], transform, HOST)[0]()
    assert narrow.rows is not None
    direct = on_smaller_side(array_rows(wide[:11]), targets[:11], transform)
    one, other = (coefficients(each, lams, transform, HOST) for each in (narrow, direct))
    assert np.allclose(one, other, atol=1e-10)
    one, other = (coefficients(each, lams, transform, HOST) for each in (between_features, between_rows))
    assert np.allclose(one, other, atol=1e-8)


def test_whitened_directions_all_shrink_alike():
    factors = shrinkage(np.array([0.0, 1e-9, 2.0, 8.0]), np.array([0.0, 5.0]), "pcaw", (5, 9))
    assert np.allclose(factors, [[0, 0], [0, 0], [1 / 2, 1 / 4], [1 / 8, 1 / 16]])


def test_gram_matrices_that_memory_does_not_hold_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 4 * 4 * 8)
    with pytest.raises(FitError, match=r"Gram matrices of 4 x 4 would take 0.0 MB"):
        on_smaller_side(array_rows(X), Y, "std")
