import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.probe.grid import C_of, best_of, search_C


def searched(score):
    asked: list[int] = []

    def evaluate(indices):
        asked.extend(indices)
        return [score(index) for index in indices]

    return search_C(evaluate), asked


def test_the_grid_has_eight_points_a_decade():
    assert [C_of(index) for index in (0, 48, 96)] == [1e-6, 1.0, 1e6]
    assert C_of(9) / C_of(8) == pytest.approx(10 ** (1 / 8))


@given(st.integers(0, 96), st.floats(0.1, 10), st.floats(0.1, 10))
def test_one_peak_is_found_as_by_brute_force_and_nothing_is_asked_twice(peak, left, right):
    def score(index):
        return -(left if index < peak else right) * abs(index - peak)

    found, asked = searched(score)
    assert found.index == max(range(-32, 129), key=score)
    assert C_of(found.index) == found.C
    assert found.score == score(found.index)
    assert len(asked) == len(set(asked)) <= 7 + 2 + 8
    assert found.tried == {index: score(index) for index in asked}


@pytest.mark.parametrize(("peak", "notes"), [(-20, 2), (-8, 1), (104, 1), (110, 2), (128, 2)])
def test_beyond_an_edge_the_grid_grows_by_two_decades_at_a_time_and_says_so(peak, notes):
    found, asked = searched(lambda index: -abs(index - peak))
    assert found.index == peak
    assert len(found.notes) == notes
    assert found.at_limit == (peak == 128)
    assert min(asked) >= -32
    assert max(asked) <= 128


def test_the_furthest_edge_is_said_to_be_one():
    found, _ = searched(lambda index: -float(index))
    assert (found.index, found.at_limit) == (-32, True)
    assert pytest.approx(1e-10) == found.C


def test_of_equals_the_smaller_c_wins_and_a_plateau_is_not_followed_beyond_the_grid():
    found, asked = searched(lambda index: 0.5)
    assert (found.index, found.notes, found.at_limit) == (0, (), False)
    assert min(asked) == 0
    assert best_of({3: 1.0, 1: 1.0, 2: 0.0}) == 1


def test_points_are_asked_for_in_batches():
    sizes = []

    def evaluate(indices):
        sizes.append(len(indices))
        return np.array([-abs(index - 40.0) for index in indices])

    search_C(evaluate)
    assert sizes == [4, 1, 1, 1, 2, 2, 2, 2]


@given(st.integers(0, 96), st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0.1, 100))
def test_what_lies_beyond_a_clear_fall_is_not_asked_for_and_would_not_have_been_chosen(peak, left, right, clear):
    def score(index):
        return -(left if index < peak else right) * abs(index - peak)

    asked: list[int] = []

    def evaluate(indices):
        asked.extend(indices)
        return [score(index) for index in indices]

    found = search_C(evaluate, lambda index, best: score(best) - score(index) > clear)
    assert found.index == max(range(-32, 129), key=score)
    last = max(index for index in asked if index % 16 == 0)
    assert last >= 96 or score(found.index) - score(last) > clear


def test_a_fall_spares_the_points_beyond():
    asked: list[int] = []

    def evaluate(indices):
        asked.extend(indices)
        return [-abs(index - 30.0) for index in indices]

    assert search_C(evaluate, lambda index, best: True).index == 30
    assert max(asked) == 48
