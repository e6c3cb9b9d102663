import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from classify.hygiene import neighbours
from classify.hygiene.neighbours import nearest, seconds_for, to_unit
from classify.probe.backend import torch_backend
from extract.errors import FitError


def rows(n: int, dims: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)


@pytest.mark.parametrize("block_bytes", [1, 4 * 57 * 10, 1 << 20])
def test_neighbours_are_those_of_scikit_learn_in_blocks_of_any_size(
    block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", block_bytes)
    X = rows(57, 6)
    distances, numbers = nearest(to_unit(X.copy()), 5)
    plain = NearestNeighbors(n_neighbors=6, metric="cosine", algorithm="brute").fit(X.astype(np.float64))
    expected, order = plain.kneighbors(X.astype(np.float64))
    np.testing.assert_array_equal(numbers, order[:, 1:])
    np.testing.assert_allclose(distances, expected[:, 1:], atol=1e-6)


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_a_gpu_finds_the_same_neighbours(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", block_bytes)
    unit = to_unit(np.concatenate([rows(57, 6), np.zeros((1, 6), np.float32)]))
    expected = nearest(unit, 5)
    monkeypatch.setattr(neighbours, "open_serial", lambda device: torch_backend("cpu"))
    distances, numbers = nearest(unit, 5, "cuda")
    np.testing.assert_array_equal(numbers[:-1], expected[1][:-1])  # the row of zeros is as far from all
    np.testing.assert_allclose(distances, expected[0], atol=1e-6)


@settings(max_examples=30)
@given(n=st.integers(1, 12), k=st.integers(1, 14), seed=st.integers(0, 9))
def test_neighbours_are_other_rows_in_rising_order(n: int, k: int, seed: int) -> None:
    distances, numbers = nearest(to_unit(rows(n, 3, seed)), k)
    assert distances.shape == numbers.shape == (n, min(k, n - 1))
    assert (np.diff(distances, axis=1) >= 0).all()
    assert (distances >= 0).all()
    for at, found in enumerate(numbers.tolist()):
        assert at not in found
        assert len(set(found)) == len(found)


def test_equal_rows_are_at_no_distance_and_come_in_order() -> None:
    distances, numbers = nearest(to_unit(np.ones((4, 3), np.float32)), 3)
    np.testing.assert_allclose(distances, 0, atol=1e-6)
    assert numbers.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_rows_get_length_one_and_rows_of_zeros_stay() -> None:
    unit = to_unit(np.array([[3, 4], [0, 0], [1e-20, 0]], np.float32))
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(FitError, match="no number"):
        to_unit(np.array([[1, value]], np.float32))


def test_the_estimate_grows_with_the_square_of_the_rows() -> None:
    assert seconds_for(2000, 512) == 4 * seconds_for(1000, 512)
    assert seconds_for(10_000, 512) < 30 < seconds_for(1_000_000, 2048) / 100
