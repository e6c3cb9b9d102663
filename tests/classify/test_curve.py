import json

import numpy as np
import pytest

from classify import curve as module
from classify.curve import Curve, fit_curve, learning_curve, smooth_variances
from classify.folds import Part, make_folds
from extract.errors import OptionError

# Hoiem et al. 2021, figure 5a: errors in % of a linear head on pretrained features, by images per class; 32.40 with 400
PUBLISHED = {
    25: [45.03, 45.59, 45.68, 45.42, 46.04, 46.11, 45.37, 45.49, 45.4, 46.18],
    50: [40.76, 40.66, 41.36, 40.87, 40.34, 40.93, 41.1, 40.79],
    100: [37.35, 37.4, 37.61, 37.7],
    200: [34.67, 34.59],
}


def part_of(y, groups=None):
    return Part(np.arange(len(y)), np.asarray(y), None if groups is None else np.asarray(groups))


def errs_at(a, eta, part, seed=0):
    """A classifier that errs by chance, at the rate a + eta n^-0.5."""
    rng = np.random.default_rng(seed)

    def fit_score(trains, test):
        y = part.y[test]
        return [np.where(rng.random(len(y)) < a + eta * len(rows) ** -0.5, (y + 1) % 2, y) for rows in trains]

    return fit_score


def test_points_on_a_curve_give_the_curve():
    n = np.array([800.0, 400.0, 200.0, 100.0])
    a, eta, covariance = fit_curve(n, 0.05 + 1.5 * n**-0.5, 1e-4 + 0.1 / n, np.array([1, 2, 4, 8]))
    assert (a, eta) == pytest.approx((0.05, 1.5))
    assert covariance == pytest.approx(covariance.T)


def test_weights_and_covariance_are_those_of_run_by_run_least_squares():
    rng = np.random.default_rng(0)
    n, runs, variances = np.array([400.0, 200.0, 100.0]), np.array([1, 2, 4]), np.array([1e-4, 3e-4, 5e-4])
    errors = [rng.random(count) for count in runs]
    A = np.repeat(np.stack([np.ones(3), n**-0.5], axis=1), runs, axis=0)
    W = np.diag(np.repeat(1 / (variances * runs), runs))
    M = np.linalg.inv(A.T @ W @ A) @ A.T @ W
    a, eta, covariance = fit_curve(n, np.array([each.mean() for each in errors]), variances, runs)
    assert (a, eta) == pytest.approx(M @ np.concatenate(errors))
    assert covariance == pytest.approx(M @ np.diag(np.repeat(variances, runs)) @ M.T)


@pytest.mark.parametrize(("most", "miss"), [(100, 1.05), (200, 0.60)])
def test_published_curves_miss_by_as_much_as_published(most, miss):
    sizes = np.array([n for n in PUBLISHED if n <= most], dtype=float)
    errors = [np.array([PUBLISHED[int(n)]]) / 100 for n in sizes]
    variances = smooth_variances(sizes.tolist(), errors)
    runs = np.array([each.size for each in errors])
    a, eta, covariance = fit_curve(sizes, np.array([each.mean() for each in errors]), variances, runs)
    found = Curve(a, eta, covariance, 0, most).predict(400)
    assert 100 * found["value"] - 32.40 == pytest.approx(miss, abs=0.006)


def test_a_prediction_is_no_surer_than_the_test_rows():
    covariance = np.array([[0.0, 0.0], [0.0, 4e-4 * 100]])
    found = Curve(0.1, 1.0, covariance, test_sd=0.01, largest=100).predict(100)
    half = 1.959964 * np.hypot(0.02, 0.01)
    assert found == pytest.approx({"value": 0.2, "low": 0.2 - half, "high": 0.2 + half})


def test_runs_that_all_agree_leave_the_least_variance():
    assert smooth_variances([200, 100], [np.array([[0.1]]), np.array([[0.1, 0.1]])]) == pytest.approx([module.V0] * 2)


def test_no_test_row_and_no_group_of_one_is_ever_trained_on():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 120, 400)
    part = part_of(groups % 3, groups)
    folds, _ = make_folds(part, 4, 0)
    calls = []

    def fit_score(trains, test):
        calls.append(test)
        for rows in trains:
            assert not set(groups[rows]) & set(groups[test])
            assert set(part.y[rows]) == {0, 1, 2}
        return [np.zeros_like(test) for _ in trains]

    found, said = learning_curve(fit_score, part, folds, 0)
    assert found is not None
    assert not said
    assert [point["runs"] for point in found["points"]] == [32, 16, 8, 4]
    assert np.array_equal(np.sort(np.concatenate(calls)), np.arange(400))


def test_all_folds_together_recover_the_curve():
    part = part_of(np.arange(4000) % 2)
    folds, _ = make_folds(part, 4, 0)
    found, _ = learning_curve(errs_at(0.04, 4.0, part), part, folds, 0)
    assert found is not None
    assert [point["n"] for point in found["points"]] == [375, 750, 1500, 3000]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["folds"] == 2  # of 1,000 test rows each: enough
    assert found["a"] == pytest.approx(0.04, abs=0.025)
    assert found["eta"] == pytest.approx(4.0, abs=0.8)
    assert found["slope_per_doubling"] == pytest.approx(4 * (6000**-0.5 - 3000**-0.5), rel=0.2)
    assert found["data_reliance"] == pytest.approx(found["eta"] * 3000**-0.5)
    [twice, four_times] = found["predictions"]
    assert (twice["n"], four_times["n"], found["refused_beyond"]) == (6000, 12000, 12000)
    for ahead in found["predictions"]:
        assert ahead["error"]["low"] < 0.04 + 4 * ahead["n"] ** -0.5 < ahead["error"]["high"]
    for point in found["points"]:
        assert point["error"]["low"] < 0.04 + 4 * point["n"] ** -0.5 < point["error"]["high"]


def test_beyond_four_times_the_curve_refuses():
    part = part_of(np.arange(400) % 2)
    folds, _ = make_folds(part, 2, 0)
    found, _ = learning_curve(errs_at(0.05, 1.0, part), part, folds, 0)
    assert found is not None
    curve = Curve.of(found)
    assert curve.largest == 200
    assert curve.predict(800) == found["predictions"][1]["error"]
    assert curve.sd(200) == found["band_sd"]
    for n in (801, 0, -3, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="at most 800"):
            curve.predict(n)


@pytest.mark.parametrize(
    ("a", "eta", "verdict", "said"),
    [
        (0.02, 6.0, "data-limited", "Limited by"),
        (0.02, 0.1, "saturated", "Saturated"),
        (0.3, 0.2, "undecided", "not clear"),
    ],
)
def test_it_says_in_words_whether_more_images_would_help(a, eta, verdict, said):
    n = 4000 if verdict != "undecided" else 100
    part = part_of(np.arange(n) % 2)
    folds, _ = make_folds(part, 4, 0)
    found, _ = learning_curve(errs_at(a, eta, part), part, folds, 0)
    assert found is not None
    assert found["verdict"] == verdict
    assert said in found["words"]
    assert f"twice the {round(n * 0.75)} training images" in found["words"]


def test_a_class_of_few_rows_makes_three_sizes_and_one_of_fewer_none():
    y = np.repeat([0, 1], [60, 6])
    part = part_of(y)
    folds, _ = make_folds(part, 3, 0)
    found, _ = learning_curve(errs_at(0.1, 0.1, part), part, folds, 0)
    assert found is not None
    assert [point["runs"] for point in found["points"]] == [12, 6, 3]
    nothing, said = learning_curve(errs_at(0.1, 0.1, part), part, make_folds(part, 2, 0)[0], 0)
    assert nothing is None
    assert said == ["no learning curve: three sizes need 4 images of every class in every fold"]


def test_perfect_answers_are_saturated_and_still_have_intervals():
    part = part_of(np.arange(200) % 2)
    folds, _ = make_folds(part, 5, 0)
    found, _ = learning_curve(lambda trains, test: [part.y[test] for _ in trains], part, folds, 0)
    assert found is not None
    assert found["verdict"] == "saturated"
    assert all(point["error"]["value"] == 0 < point["error"]["high"] for point in found["points"])


def test_rows_that_belong_together_count_as_one():
    wrong = np.random.default_rng(0).random(300) < 0.3
    alone = module._clustered_sd(wrong, np.arange(300))
    assert alone == pytest.approx(wrong.std(ddof=1) / np.sqrt(300))
    tripled = module._clustered_sd(np.repeat(wrong, 3), np.repeat(np.arange(300), 3))
    assert tripled == pytest.approx(alone)


def test_the_balanced_error_counts_classes_alike():
    part = part_of((np.arange(1000) % 10 == 0).astype(int))
    folds, _ = make_folds(part, 4, 0)

    def never_the_rare(trains, test):
        return [np.zeros(len(test), dtype=int) for _ in trains]

    for metric, error in (("accuracy", 0.1), ("balanced_accuracy", 0.5)):
        found, said = learning_curve(never_the_rare, part, folds, 0, metric)
        assert found is not None
        assert (found["metric"], said) == (metric, [])
        for point in found["points"]:
            assert point["error"]["value"] == pytest.approx(error)
            assert point["error"]["low"] < error < point["error"]["high"]


def test_another_metric_gives_way_to_accuracy_and_that_is_said():
    part = part_of(np.arange(200) % 2)
    found, said = learning_curve(errs_at(0.1, 0.1, part), part, make_folds(part, 4, 0)[0], 0, "macro_f1")
    assert found is not None
    assert found["metric"] == "accuracy"
    assert said == ["the learning curve is of accuracy: macro_f1 is no mean over images"]


def test_no_fold_tests_more_rows_than_say_something(monkeypatch):
    y = np.arange(2000) % 2
    part, asked = part_of(y), []
    known = errs_at(0.1, 1.0, part)

    def fit_score(trains, test):
        asked.append(test)
        return known(trains, test)

    folds = make_folds(part, 4, 0)[0]
    monkeypatch.setattr(module, "MOST_TESTED", 100)
    monkeypatch.setattr(module, "ENOUGH_TESTED", 150)
    found, _ = learning_curve(fit_score, part, folds, 0)
    assert [len(test) for test in asked] == [100, 100]
    assert found["n_tested"] == 200
    assert all(np.isin(test, fold[1]).all() for test, fold in zip(asked, folds, strict=False))
