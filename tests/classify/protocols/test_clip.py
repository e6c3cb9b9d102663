import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from tiny_protocol import tiny_data

from classify.protocols import PROTOCOLS, Options
from classify.protocols.clip import C_at, search

CLIP = PROTOCOLS["clip"]


def plain_search(scores):
    """The search as it is told: a peak that moves, ends of the grid that hold, the first of equals."""
    peak, top, looked = -1, -1.0, []
    for index in [int(16 * step) for step in range(7)]:
        looked.append(index)
        if scores[index] > top:
            peak, top = index, scores[index]
    span = 8
    while span > 0:
        for index in [side for side in (max(peak - span, 0), min(peak + span, 96)) if side != peak]:
            looked.append(index)
            if scores[index] > top:
                peak, top = index, scores[index]
        span //= 2
    return peak, looked


@given(st.lists(st.integers(0, 9), min_size=97, max_size=97))
def test_the_search_moves_as_published(scores):
    looked = []
    best = search(lambda index: looked.append(index) or scores[index])
    # Where the left side is better, the plain one measures the right side all the same: as here.
    expected, seen = plain_search(scores)
    assert best == expected
    assert looked == seen


@given(st.integers(0, 96))
def test_a_single_peak_is_found(peak):
    assert search(lambda index: -abs(index - peak) + 100.0) == peak


def test_the_grid_is_eight_to_a_decade():
    assert [C_at(index) for index in (0, 8, 48, 96)] == pytest.approx([1e6, 1e5, 1, 1e-6])


def fitted(X, y, C):
    model = LogisticRegression(C=C, max_iter=1000, tol=1e-4 / len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, y)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_c_and_predictions_are_those_of_the_plain_way(n_classes):
    data = tiny_data(n_classes=n_classes, validation=np.arange(90) % 3 == 0)
    X, y, val = data.X_train.astype(np.float64), data.y_train, data.validation

    def score_at(index):
        return np.mean(fitted(X[~val], y[~val], 10 ** (6 - index / 8)).predict(X[val]) == y[val])

    best, looked = plain_search({index: score_at(index) for index in range(97)})
    result = CLIP.run(data)
    assert result.params == {"C": pytest.approx(10 ** (6 - best / 8))}
    assert len(result.tried) == len(looked)
    expected = fitted(X, y, 10 ** (6 - best / 8)).predict(data.X_test.astype(np.float64))
    assert (result.predicted == expected).all()


def test_without_a_search_c_is_that_of_the_example():
    data = tiny_data()
    result = CLIP.run(data, options=Options(search=False))
    assert (result.params, result.tried) == ({"C": 0.316}, [])
    expected = fitted(data.X_train.astype(np.float64), data.y_train, 0.316).predict(data.X_test.astype(np.float64))
    assert (result.predicted == expected).all()


def test_a_split_that_is_drawn_hangs_on_the_seed():
    one, same, other = (CLIP.run(tiny_data(), seed=seed) for seed in (3, 3, 4))
    assert [row["score"] for row in one.tried] == [row["score"] for row in same.tried]
    assert [row["score"] for row in one.tried] != [row["score"] for row in other.tried]
    assert any("drawn by seed 3" in note for note in one.notes)
