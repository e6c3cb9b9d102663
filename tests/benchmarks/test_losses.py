"""What a choice loses, on made-up runs whose losses are known."""

import math

import numpy as np
import pytest

from benchmarks.advise.losses import best_of, lost, lost_by_halves, over_sets, surely_lost
from benchmarks.cells.outcomes import Outcome, compare
from benchmarks.cells.sets import SETS, Cell


def of(right: list[int] | np.ndarray, groups: np.ndarray | None = None) -> Outcome:
    return Outcome(np.array(right, dtype=bool), groups, 20, 10.0, 1.0)


def drawn(seed: int, share: float, n: int) -> Outcome:
    return of(np.random.default_rng(seed).random(n) < share)


def test_the_best_is_the_most_accurate_and_of_equals_the_first():
    found = {"linear": of([1, 0, 0, 1]), "tail": of([1, 1, 1, 0]), "full": of([0, 1, 1, 1])}
    assert best_of(found) == "tail"
    assert lost(found, found["linear"]) == 0.25
    assert lost(found, found["full"]) == 0
    assert lost(found, of([1, 1, 1, 1])) == -0.25  # a run may be better than all that could have been chosen


def test_what_is_surely_lost_is_the_bound_of_a_pair_where_there_is_one_alone():
    """One-sided: the lower end of the interval of 90 %."""
    better, worse = drawn(0, 0.8, 1000), drawn(1, 0.6, 1000)
    error = (compare(better, worse).high - compare(better, worse).low) / (2 * 1.96)
    expected = lost({"a": better}, worse) - 1.645 * error
    assert surely_lost({"a": better}, worse) == pytest.approx(expected, abs=0.004)


def test_what_was_picked_as_the_best_of_many_that_are_alike_is_rarely_surely_better():
    """The best of twenty equals is some points above the others, which the interval of a pair often calls sure."""
    found = {str(seed): drawn(seed, 0.7, 300) for seed in range(20)}
    best = found[best_of(found)]
    naive = sum(compare(best, each).low > 0 for each in found.values())
    assert sum(surely_lost(found, each) > 0 for each in found.values()) <= naive / 2


def test_one_group_tells_nothing_for_sure_and_two_hardly_anything():
    n = 100
    right = {"a": np.ones(n, bool), "b": np.arange(n) % 2 == 0}
    one, two = np.zeros(n, int), np.arange(n) // 50
    for groups, sure in ((None, True), (one, False)):
        found = {name: of(each, groups) for name, each in right.items()}
        assert (surely_lost(found, found["b"]) > 0.3) == sure
    uneven = {"a": of(np.ones(n, bool), two), "b": of(two == 0, two)}
    assert surely_lost(uneven, uneven["b"]) == 0


def test_by_halves_the_best_of_equals_is_worth_no_more_than_any():
    found = {str(seed): drawn(seed, 0.7, 400) for seed in range(10)}
    typical = drawn(99, 0.7, 400)
    assert lost(found, typical) > 0.015
    assert abs(lost_by_halves(found, typical)) < lost(found, typical) - 0.01
    certain = {"a": of([1] * 40), "b": of([1, 0] * 20)}
    assert lost_by_halves(certain, certain["b"]) == pytest.approx(0.5, abs=0.02)
    assert lost_by_halves(certain, certain["a"]) == 0


def test_halves_keep_groups_whole():
    """Each of two groups has its own best, so what is picked by one is wrong on the other."""
    groups = np.repeat([0, 1], 10)
    found = {"a": of(groups == 0, groups), "b": of(groups == 1, groups)}
    chosen = of(np.zeros(20), groups)
    assert lost(found, chosen) == 0.5
    assert lost_by_halves(found, chosen) == 0


def test_sets_are_what_others_would_differ_from():
    one, other = SETS[:2]
    values = {Cell(one, 10): 1.0, Cell(one, 50): 3.0, Cell(other, 12): 4.0}
    mean, low, high = over_sets(values)
    assert mean == 3.0
    assert (high - mean, mean - low) == (pytest.approx(12.706, abs=0.01), pytest.approx(12.706, abs=0.01))
    assert over_sets({Cell(one, 10): 1.0}) == (1.0, -math.inf, math.inf)
