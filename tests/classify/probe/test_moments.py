from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classify.probe.backend import HOST
from classify.probe.moments import mean_std, part_moments, scalers, sum_of
from classify.probe.rows import ArrayRows, array_rows


def problem(n: int = 60, dims: int = 4, k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    return rng.normal(size=(n, dims)), 2.0 * (y[:, None] == np.arange(k)) - 1


def in_blocks(X: np.ndarray, rows: int = 7) -> ArrayRows:
    return replace(array_rows(X), block_bytes=rows * X.shape[1] * X.itemsize)


@pytest.mark.parametrize("far", [0.0, 1e3, 1e6])
def test_moments_are_those_of_the_rows_however_far_from_zero(far):
    X, Y = problem()
    [moments] = part_moments(in_blocks(X + far), Y, np.zeros(60, int), 1, HOST)
    assert moments.n == 60
    assert np.allclose(moments.mean, (X + far).mean(axis=0), rtol=1e-14)
    assert np.allclose(moments.std(), X.std(axis=0), rtol=1e-9)
    centred, targets = X - X.mean(axis=0), Y - Y.mean(axis=0)
    assert np.allclose(moments.centred_gram(), centred.T @ centred, rtol=1e-7, atol=1e-7)
    assert np.allclose(moments.centred_cross(), centred.T @ targets, rtol=1e-7, atol=1e-7)
    assert np.allclose(moments.intercept, Y.mean(axis=0))


def test_single_precision_far_from_zero_loses_only_what_its_numbers_lost():
    X = problem(n=500)[0].astype(np.float32) + np.float32(1000)
    _, std = mean_std(in_blocks(X, 50), np.ones((1, 500), bool))
    assert np.allclose(std[0], X.astype(np.float64).std(axis=0), rtol=1e-12)


@given(st.data())
@settings(max_examples=30)
def test_parts_add_up_and_can_be_taken_away(data):
    n, n_parts = data.draw(st.integers(2, 30)), data.draw(st.integers(1, 4))
    parts = np.array(data.draw(st.lists(st.integers(-1, n_parts - 1), min_size=n, max_size=n)))
    X, Y = problem(n)
    found = part_moments(in_blocks(X, data.draw(st.integers(1, n))), Y, parts, n_parts, HOST)
    assert [each.n for each in found] == [(parts == part).sum() for part in range(n_parts)]
    rest = sum_of(found) - found[0]
    inside = parts > 0
    if inside.any():
        centred = X[inside] - X[inside].mean(axis=0)
        assert np.allclose(rest.centred_gram(), centred.T @ centred, atol=1e-10)
        assert np.allclose(rest.mean, X[inside].mean(axis=0))
    assert rest.n == inside.sum()


def test_targets_may_be_of_one_byte():
    X, Y = problem()
    [small], [large] = (part_moments(in_blocks(X), each, np.zeros(60, int), 1, HOST) for each in (Y.astype(np.int8), Y))
    assert np.array_equal(small.cross, large.cross)


def test_moments_about_different_means_are_not_mixed():
    X, Y = problem()
    [one], [other] = (part_moments(array_rows(each), Y, np.zeros(60, int), 1, HOST) for each in (X, X + 1))
    with pytest.raises(ValueError, match="different shifts"):
        one + other


@pytest.mark.parametrize("transform", ["std", "l2"])
def test_scalers_of_many_sets_of_rows_take_one_pass(transform):
    X, _ = problem()
    X[:, 2] = 7.0
    masks = np.random.default_rng(1).random((5, 60)) < 0.5
    passes = []

    class Counted(ArrayRows):
        def blocks(self):
            passes.append(1)
            return super().blocks()

    found = scalers(Counted(X), masks, transform)
    expected = np.array([X[mask].mean(axis=0) for mask in masks])
    spread = np.array([X[mask].std(axis=0) for mask in masks])
    assert np.allclose(found.mean, expected, rtol=1e-13)
    spread[:, 2] = np.inf
    assert np.allclose(found.scale, spread if transform == "std" else 1, rtol=1e-12)
    assert len(passes) <= 2  # one looks at the first block alone


def test_whitening_has_no_scalers():
    with pytest.raises(ValueError, match="no scale"):
        scalers(array_rows(problem()[0]), np.ones((1, 60), bool), "pcaw")
