import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from classify import statistics
from classify.evaluate import METRICS, Resamples, draw_resamples, values_of
from classify.statistics import bbc, corrected_t, drawn, mcnemar, one_standard_error, paired, paired_rows
from extract.errors import FitError

SKLEARN = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "macro_f1": lambda y, predicted: f1_score(y, predicted, average="macro"),
}


def configurations(rng, n, rates, shared=0.0):
    """Right answers by chance, `shared` of their luck being the row's own: -> y (n,) and codes (m, n) of 2 classes."""
    rates = np.asarray(rates)[:, None]
    luck = np.sqrt(shared) * rng.normal(size=n) + np.sqrt(1 - shared) * rng.normal(size=(len(rates), n))
    y = rng.integers(0, 2, n)
    return y, np.where(luck < stats.norm.ppf(rates), y, 1 - y)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("grouped", [False, True])
def test_draws_are_those_of_a_plain_loop(metric, grouped, monkeypatch):
    monkeypatch.setattr(statistics, "ROWS", 7)  # several blocks
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 40)
    predicted = np.where(rng.random((4, 40)) < 0.6, y, rng.integers(0, 3, (4, 40)))
    resamples = draw_resamples(40, rng.integers(0, 12, 40) if grouped else None, 3)
    few = Resamples(resamples.unit, resamples.counts[:, :20], grouped)
    found = drawn(predicted, y, few, metric)
    for codes, values in zip(predicted, found, strict=True):
        for counts, value in zip(few.counts.T, values, strict=True):
            rows = np.repeat(np.arange(40), counts[few.unit].astype(int))
            assert value == pytest.approx(SKLEARN[metric](y[rows], codes[rows]), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_draw_of_every_row_once_is_the_metric_itself(metric):
    rng = np.random.default_rng(0)
    y, predicted = rng.integers(0, 5, 100), rng.integers(0, 6, (3, 100))
    once = Resamples(np.arange(100), np.ones((100, 1), dtype=np.float32), grouped=False)
    assert drawn(predicted, y, once, metric)[:, 0] == pytest.approx(values_of(y, predicted)[metric])


def test_bbc_chooses_on_what_was_drawn_and_scores_what_was_left():
    y, predicted = np.zeros(4, dtype=int), np.array([[0, 0, 1, 1], [1, 0, 0, 0]])
    draws = np.array([[2, 2, 0, 0], [0, 1, 1, 2], [1, 1, 1, 1]], dtype=np.float32).T
    # the first draw takes the first configuration and finds it wrong on both rows left, the second takes the second,
    # which is wrong on the one row left; the third leaves nothing
    assert bbc(predicted, y, Resamples(np.arange(4), draws, False), "accuracy")["value"] == 0
    turned = bbc(predicted, y, Resamples(np.arange(4), draws[:, :1], False), "accuracy")
    right = bbc(1 - predicted[1:], y, Resamples(np.arange(4), draws[:, 1:2], False), "accuracy")
    assert (turned["value"], right["value"]) == (0, 1)


def test_bbc_scores_whole_groups():
    y, predicted = np.zeros(5, dtype=int), np.array([[0, 0, 0, 0, 1]])
    draws = np.array([[2, 0], [0, 2]], dtype=np.float32)
    found = bbc(predicted, y, Resamples(np.array([0, 0, 1, 1, 1]), draws, True), "accuracy")
    assert found["value"] == pytest.approx((2 / 3 + 1) / 2)


def test_bbc_of_one_group_is_refused():
    y = np.zeros(3, dtype=int)
    with pytest.raises(FitError, match="one group"):
        bbc(y[None], y, draw_resamples(3, np.zeros(3, dtype=int), 0), "accuracy")


@pytest.mark.parametrize("metric", METRICS)
def test_the_best_of_60_coins_is_worth_a_coin(metric):
    y, predicted = configurations(np.random.default_rng(0), 200, np.full(60, 0.5))
    naive = values_of(y, predicted)[metric].max()
    found = bbc(predicted, y, draw_resamples(200, None, 0), metric)
    assert 0.56 < naive < 0.62
    assert found["value"] == pytest.approx(0.5, abs=0.02)
    assert found["low"] < 0.5 < found["high"]


def test_the_best_of_many_like_configurations_is_worth_what_it_is_worth():
    rates = np.linspace(0.76, 0.82, 60)
    naive, corrected, truth, held = [], [], [], []
    for seed in range(20):
        y, predicted = configurations(np.random.default_rng(seed), 200, rates, shared=0.5)
        values = values_of(y, predicted)["accuracy"]
        found = bbc(predicted, y, draw_resamples(200, None, seed), "accuracy")
        naive.append(values.max())
        corrected.append(found["value"])
        truth.append(rates[values.argmax()])
        held.append(found["low"] < truth[-1] < found["high"])
    assert np.mean(naive) - np.mean(truth) > 0.02
    assert abs(np.mean(corrected) - np.mean(truth)) < 0.01
    assert np.mean(held) >= 0.9


def wrong_on(*rows):
    return np.isin(np.arange(100), np.concatenate([np.arange(start, stop) for start, stop in rows])).astype(int)


def test_the_rule_weighs_the_paired_difference():
    y, resamples = np.zeros(100, dtype=int), draw_resamples(100, None, 0)
    best, alike, apart, poor = wrong_on((0, 20)), wrong_on((0, 24)), wrong_on((20, 44)), wrong_on((0, 60))
    choose = [best, alike, apart, poor]
    # both are 4 points worse: the one by a standard error of 2 points, the other by one of 6.6
    assert one_standard_error(np.stack(choose), y, resamples, "accuracy", [3, 1, 2, 0]) == 2
    assert one_standard_error(np.stack(choose), y, resamples, "accuracy", [3, 1, 0, 2]) == 0


def test_of_equals_the_first_in_the_order_is_chosen():
    y, resamples = np.zeros(100, dtype=int), draw_resamples(100, None, 0)
    same = np.stack([wrong_on((0, 20))] * 3)
    assert one_standard_error(same, y, resamples, "macro_f1", [2, 0, 1]) == 2


@pytest.mark.parametrize(("folds", "repeats", "factor"), [(5, 1, 1.50), (5, 5, 2.69), (10, 1, 1.45)])
def test_overlap_widens_the_t_interval_as_published(folds, repeats, factor):
    differences = np.random.default_rng(0).normal(0.02, 0.01, folds * repeats)
    found = corrected_t(differences, n_train=100 * (folds - 1), n_test=100)
    plain = stats.ttest_1samp(differences, 0)
    low, high = plain.confidence_interval()
    assert (found.high - found.low) / (high - low) == pytest.approx(factor, abs=0.005)
    assert found.mean == pytest.approx(differences.mean())
    exact = np.sqrt(1 + len(differences) / (folds - 1))
    ratio = differences.mean() / stats.sem(differences) / exact
    assert found.p == pytest.approx(2 * stats.t.sf(ratio, len(differences) - 1))


def test_differences_without_spread():
    assert corrected_t(np.zeros(5), 80, 20) == statistics.Comparison(0, 0, 0, 1)
    assert corrected_t(np.full(5, 0.5), 80, 20) == statistics.Comparison(0.5, 0.5, 0.5, 0)
    with pytest.raises(FitError, match="no spread"):
        corrected_t(np.zeros(1), 80, 20)


def test_mcnemar_as_published():
    # Bentur et al. 2009, in the paper's supplement: 1 and 7 of 21 differ; p = 0.0391
    a, b = np.repeat([1, 1, 0, 0], [1, 1, 7, 12]), np.repeat([1, 0, 1, 0], [1, 1, 7, 12])
    assert mcnemar(np.ones(21, dtype=int), a, b) == pytest.approx(0.0391, abs=5e-5)
    assert mcnemar(np.ones(21, dtype=int), b, a) == pytest.approx(0.0391, abs=5e-5)


def test_mcnemar_of_no_difference():
    y, a = np.zeros(4, dtype=int), np.array([0, 1, 0, 0])
    assert mcnemar(y, a, a) == 1
    assert mcnemar(y, a, np.array([1, 0, 0, 0])) == pytest.approx(1 - 0.5 / 2)  # one each: the pmf is 1/2


def test_a_paired_difference_is_that_of_a_plain_loop():
    rng = np.random.default_rng(4)
    y, (a, b) = configurations(rng, 60, [0.9, 0.7])
    resamples = draw_resamples(60, np.repeat(np.arange(20), 3), 0)
    draws = []
    for counts in resamples.counts.T:
        rows = np.repeat(np.arange(60), counts[resamples.unit].astype(int))
        draws.append(np.mean(a[rows] == y[rows]) - np.mean(b[rows] == y[rows]))
    found = paired(y, a, b, resamples, "accuracy")
    assert found.mean == pytest.approx(np.mean(a == y) - np.mean(b == y))
    wide = stats.t.ppf(0.975, 19) / stats.norm.ppf(0.975) * np.sqrt(20 / 19)
    draws = found.mean + wide * (np.array(draws) - found.mean)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert found.p == pytest.approx(2 * (1 + (draws <= 0).sum()) / 1001)


def test_a_difference_of_a_few_groups_holds_the_truth_and_one_of_a_single_group_says_nothing():
    held = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        y, groups, gain = np.zeros(300, dtype=int), np.repeat(np.arange(5), 60), rng.normal(0.1, 0.1, 5)
        a, b = (rng.random(300) > 0.5 + gain[groups]).astype(int), (rng.random(300) > 0.5).astype(int)
        found = paired(y, a, b, draw_resamples(300, groups, seed), "accuracy")
        held.append(found.low <= 0.1 <= found.high)
    assert np.mean(held) >= 0.9
    alone = paired(y, a, b, draw_resamples(300, np.zeros(300, dtype=int), 0), "accuracy")
    assert (alone.low, alone.high, alone.p) == (-1, 1, 1)


def test_two_that_agree_do_not_differ():
    y, (a, _) = configurations(np.random.default_rng(0), 50, [0.8, 0.8])
    assert paired(y, a, a, draw_resamples(50, None, 0), "macro_f1") == statistics.Comparison(0, 0, 0, 1)
    assert mcnemar(y, a, a) == 1


def test_patterns_stand_for_their_rows(monkeypatch):
    y, (a, b) = configurations(np.random.default_rng(5), 300, [0.85, 0.8], shared=0.3)
    found = paired_rows(y, a, b, seed=0)
    for metric in METRICS:
        by_rows = paired(y, a, b, draw_resamples(300, None, 0), metric)
        assert found[metric].mean == by_rows.mean
        assert (found[metric].low, found[metric].high) == pytest.approx((by_rows.low, by_rows.high), abs=0.01)
    monkeypatch.setattr(statistics, "CELLS", 100)
    assert paired_rows(y, a, b, seed=0) == found


def test_a_paired_interval_holds_the_truth_as_often_as_it_says():
    held = []
    for seed in range(100):
        y, (a, b) = configurations(np.random.default_rng(seed), 150, [0.85, 0.8], shared=0.5)
        found = paired_rows(y, a, b, seed)["accuracy"]
        held.append(found.low <= 0.05 <= found.high)
    assert 0.88 <= np.mean(held) <= 1


def test_a_difference_of_shares_is_no_more_than_all_however_few_groups_there_are():
    y, groups = np.ones(40, dtype=int), np.repeat([0, 1], 20)
    found = paired(y, groups, np.zeros(40, dtype=int), draw_resamples(40, groups, 0), "accuracy")
    assert (found.low, found.mean, found.high) == (-1.0, 0.5, 1.0)
