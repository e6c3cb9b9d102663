import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from classify.calibrate import (
    Bin,
    at_bound,
    before_and_after,
    brier,
    calibration,
    classwise_ece,
    ece,
    fit_temperature,
    losses,
    lowest_of,
    nll,
    reliability,
    softmax,
)


def drawn(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels drawn from their softmax: calibrated by construction."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, n_classes)) * 2
    y = (rng.random((n, 1)) > softmax(scores).cumsum(axis=1)).sum(axis=1).clip(max=n_classes - 1)
    return scores, y


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_found(true):
    scores, y = drawn(20_000, 5)
    temperature = fit_temperature(scores * true, y)
    assert temperature == pytest.approx(true, rel=0.03)
    assert nll(scores * true, y, temperature) <= nll(scores * true, y)
    assert not at_bound(temperature, scores * true)


def test_scores_that_are_always_right_stop_at_the_bound():
    scores, y = np.eye(3)[np.arange(30) % 3], np.arange(30) % 3
    assert at_bound(fit_temperature(scores, y), scores)


def test_temperatures_of_small_scores_may_be_as_low_as_makes_answers_sure():
    scores = np.array([[3e-6, 1e-6, 0.0], [0.0, 2e-6, 1e-6], [0.0, 0.0, 4e-6]])
    assert lowest_of(scores) == pytest.approx(2e-6 / 6)
    assert lowest_of(np.array([[0.4, 0.1], [0.0, 0.4]])) == lowest_of(np.zeros((4, 2))) == 0.05


def test_that_most_scores_are_close_does_not_make_the_others_surer_than_they_are():
    margins, rng = np.where(np.arange(1000) < 600, 1e-3, 3.0), np.random.default_rng(0)
    wrong = rng.random(1000) > softmax(np.c_[np.zeros(1000), margins])[:, 1]
    scores = np.c_[np.zeros(1000), margins]
    assert fit_temperature(scores, np.where(wrong, 0, 1)) == pytest.approx(1, abs=0.2)


def test_an_unseen_label_is_dear_and_finite():
    found = losses(np.array([[0.25, 0.75], [1.0, 0.0], [1.0, 0.0]]), np.array([0, 1, 2]))
    assert found == pytest.approx([-np.log(0.25), 36.04, 36.04], abs=0.01)


def test_brier_is_sklearns_and_counts_an_unseen_label_as_wrong():
    scores, y = drawn(200, 4)
    expected = brier_score_loss(y, softmax(scores), labels=range(4), scale_by_half=False)
    assert brier(softmax(scores), y) == pytest.approx(expected)
    assert brier(np.array([[1.0, 0.0]]), np.array([2])) == 2
    assert brier(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_bins_of_equal_mass_hold_what_they_say():
    confidence = np.array([0.9, 0.1, 0.8, 0.2, 0.6])
    hit = np.array([True, False, False, True, True])
    assert reliability(confidence, hit, 2) == [
        Bin(pytest.approx(0.3), pytest.approx(2 / 3), 3),
        Bin(pytest.approx(0.85), 0.5, 2),
    ]


def plain_gap(confidence: list[float], hit: list[bool], n_bins: int) -> float:
    order = sorted(range(len(hit)), key=lambda row: confidence[row])
    parts = np.array_split(np.array(order), n_bins)
    return sum(abs(sum(confidence[row] - hit[row] for row in part)) for part in parts) / len(hit)


def test_errors_of_calibration_are_those_of_a_loop():
    scores, y = drawn(300, 3)
    shares = softmax(scores * 2)
    columns = [plain_gap(shares[:, code].tolist(), (y == code).tolist(), 15) for code in range(3)]
    assert classwise_ece(shares, y) == pytest.approx(sum(columns) / 3)
    hit = (shares.argmax(axis=1) == y).tolist()
    assert ece(shares, y) == pytest.approx(plain_gap(shares.max(axis=1).tolist(), hit, 15))


def test_classes_may_be_wrong_that_make_up_for_each_other():
    shares = np.repeat([[0.6, 0.4], [0.4, 0.6]], 10, axis=0)
    y = np.array([0] * 8 + [1] * 2 + [1] * 4 + [0] * 6)  # 8 and 4 of 10 answers are right, each with 0.6
    assert ece(shares, y, 1) == pytest.approx(0)
    assert classwise_ece(shares, y, 2) == pytest.approx(0.2)


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 99))
def test_measures_stay_within_their_bounds(n, n_classes, seed):
    rng = np.random.default_rng(seed)
    shares, y = rng.dirichlet(np.ones(n_classes), n), rng.integers(0, n_classes + 1, n)
    found = calibration(shares, y)
    assert 0 <= found["ece"] <= 1
    assert 0 <= found["classwise_ece"] <= 1
    assert 0 <= found["brier"] <= 2
    assert sum(each["count"] for each in found["reliability"]) == n
    weighed = sum(each["count"] * each["accuracy"] for each in found["reliability"]) / n
    assert weighed == pytest.approx((shares.argmax(axis=1) == y).mean())


def test_the_temperature_mends_what_is_too_sure():
    scores, y = drawn(5000, 4)
    found = before_and_after(scores * 3, y, 3.0)
    for name in ("nll", "ece", "classwise_ece", "brier"):
        assert found[f"{name}_after"] < found[f"{name}_before"]
    assert found["nll_before"] == pytest.approx(nll(scores * 3, y))
    assert found["ece_after"] < 0.02
    surest = found["reliability_before"][-1]
    assert surest["confidence"] > surest["accuracy"]
