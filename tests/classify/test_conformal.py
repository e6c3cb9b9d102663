import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classify.calibrate import softmax
from classify.conformal import (
    Conformal,
    fit_abstain,
    fit_conformal,
    measure_abstain,
    measure_sets,
    one_of_each,
    quantile_for,
    risk_coverage,
)
from classify.evaluate import draw_resamples, wilson
from extract.errors import OptionError


def drawn(n: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, n_classes)) * 1.5
    y = (rng.random((n, 1)) > softmax(scores).cumsum(axis=1)).sum(axis=1).clip(max=n_classes - 1)
    return softmax(scores * 3), y  # far too sure: the promise needs no calibrated probabilities


@pytest.mark.parametrize(
    ("n", "alpha", "rank"), [(9, 0.1, 9), (99, 0.1, 90), (19, 0.05, 19), (100, 0.1, 91), (10, 0.5, 6)]
)
def test_the_threshold_is_the_order_statistic_of_the_theorem(n, alpha, rank):
    misfit = np.random.default_rng(0).permutation(np.arange(1, n + 1) / (n + 1))
    assert quantile_for(misfit, alpha) == rank / (n + 1)


def test_too_few_rows_promise_everything():
    assert quantile_for(np.zeros(8), 0.1) == 1
    assert Conformal(0.1, (1.0, 1.0), False, 8).sets(np.array([[1.0, 0.0]])).all()


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.05, 0.1, 0.3]))
def test_sets_hold_the_truth_as_often_as_promised(seed, alpha):
    shares, y = drawn(2000, 4, seed)
    found = fit_conformal(shares[:1000], y[:1000], alpha)
    new = measure_sets(found.sets(shares[1000:]), y[1000:], draw_resamples(1000, None, 0))
    # Of 1000 calibration rows the coverage is Beta(1 - alpha), of 1000 new ones binomial: five deviations of both.
    spread = 5 * np.sqrt(2 * alpha * (1 - alpha) / 1000)
    assert abs(new["coverage"]["value"] - (1 - alpha)) < spread + 0.002
    assert 0 < new["mean_size"] <= 4


def test_each_class_has_its_threshold_from_fifty_rows_on():
    shares, y = drawn(600, 3, 1)
    rare = np.flatnonzero(y == 2)
    enough, short = (np.concatenate([np.flatnonzero(y != 2), rare[:n]]) for n in (50, 49))
    own, common = (fit_conformal(shares[at], y[at]) for at in (enough, short))
    assert own.class_conditional
    assert not common.class_conditional
    assert len(set(common.thresholds)) == 1
    for code in range(3):
        of_class = enough[y[enough] == code]
        assert own.thresholds[code] == quantile_for(1 - shares[of_class, code], 0.1)


def test_of_each_group_one_row_counts():
    groups = np.repeat([7, 3, 5], [1, 4, 2])
    at = one_of_each(groups, seed=0)
    assert groups[at].tolist() == [7, 3, 5]
    assert {tuple(one_of_each(groups, seed)) for seed in range(60)} == {*itertools.product([0], [1, 2, 3, 4], [5, 6])}
    shares, y = drawn(7, 3, 2)
    assert fit_conformal(shares, y, 0.5, groups).n == 3


def test_alpha_beyond_its_bounds_is_refused():
    for alpha in (0.0, 1.0, float("nan")):
        with pytest.raises(OptionError, match="alpha"):
            fit_conformal(np.eye(2), np.arange(2), alpha)


def test_sets_are_measured_with_a_label_that_is_no_class():
    sets = np.array([[True, False], [True, True], [False, False], [False, True]])
    found = measure_sets(sets, np.array([0, 1, 0, 2]), draw_resamples(4, None, 0))
    assert found["coverage"]["value"] == 0.5
    low, high = wilson(2, 4)
    assert (found["coverage"]["low"], found["coverage"]["high"]) == (pytest.approx(low), pytest.approx(high))
    assert (found["mean_size"], found["singletons"], found["empty"]) == (1, 0.5, 0.25)


def plain_curve(confidence: np.ndarray, hit: np.ndarray) -> float:
    """AURC as the mean over orders that are sorted by confidence, ties in every order."""
    aurcs = []
    for order in itertools.permutations(range(len(hit))):
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            wrong = np.cumsum([not hit[row] for row in order])
            aurcs.append(np.mean(wrong / np.arange(1, len(hit) + 1)))
    return float(np.mean(aurcs))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from([0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=6))
def test_the_area_under_the_curve_is_that_of_all_orders(rows):
    confidence, hit = (np.array(column) for column in zip(*rows, strict=True))
    found = risk_coverage(confidence, hit)
    assert found["aurc"] == pytest.approx(plain_curve(confidence, hit))
    assert found["coverage"][-1] == 1
    assert found["risk"][-1] == pytest.approx(1 - hit.mean())


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    confidence = np.linspace(0, 1, 5000)
    found = risk_coverage(confidence, confidence > 0.3)
    assert len(found["risk"]) == len(found["coverage"]) == 200
    assert (found["coverage"][0], found["risk"][0]) == (1 / 5000, 0)
    json.dumps(found)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.6, 0.8]), st.booleans()), min_size=1, max_size=12),
    st.sampled_from([0.5, 0.75, 1.0]),
)
def test_the_lowest_threshold_that_reaches_the_accuracy_is_taken(rows, asked):
    confidence, hit = (np.array(column) for column in zip(*rows, strict=True))
    found = fit_abstain(confidence, hit, "accuracy", asked)
    enough = [t for t in sorted(set(confidence)) if hit[confidence >= t].mean() >= asked]
    assert (found.threshold if found else None) == (enough[0] if enough else None)
    if found:
        assert found.accuracy_of_answered == hit[confidence >= found.threshold].mean() >= asked
        assert found.as_dict()["coverage"] == (confidence >= found.threshold).mean()


@pytest.mark.parametrize(("asked", "threshold", "coverage"), [(0.5, 0.6, 0.75), (0.2, 0.9, 0.25), (1.0, 0.1, 1.0)])
def test_the_highest_threshold_that_answers_so_many_is_taken(asked, threshold, coverage):
    found = fit_abstain(np.array([0.6, 0.9, 0.6, 0.1]), np.array([True, True, False, False]), "coverage", asked)
    assert found is not None
    assert (found.threshold, found.coverage) == (threshold, coverage)


def test_an_impossible_wish_is_refused():
    confidence, hit = np.array([0.5]), np.array([True])
    with pytest.raises(OptionError, match=r"no rule to abstain by 'precision'.*accuracy, coverage"):
        fit_abstain(confidence, hit, "precision", 0.5)
    for asked in (0.0, 1.1):
        with pytest.raises(OptionError, match="share above 0"):
            fit_abstain(confidence, hit, "accuracy", asked)


def test_a_threshold_is_measured_on_other_rows():
    found = measure_abstain(0.5, np.array([0.9, 0.5, 0.4, 0.1]), np.array([True, False, True, True]))
    assert (found["coverage"]["value"], found["accuracy_of_answered"]["value"]) == (0.5, 0.5)
    assert found["coverage"]["low"] == pytest.approx(wilson(2, 4)[0])
    assert measure_abstain(0.95, np.array([0.9]), np.array([True]))["accuracy_of_answered"] is None
