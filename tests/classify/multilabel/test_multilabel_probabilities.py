import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

from classify.multilabel.probabilities import (
    FEWEST,
    at_bounds,
    classwise_ece,
    fit_temperatures,
    log_losses,
    probabilities,
)


def drawn(temperatures: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose probabilities are right at these temperatures."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, len(temperatures))) * 2
    return logits * temperatures, rng.random(logits.shape) < expit(logits)


def test_a_known_temperature_is_found_for_each_class():
    true = np.array([0.4, 1.0, 3.0])
    scores, Y = drawn(true, 20_000)
    assert fit_temperatures(scores, Y) == pytest.approx(true, rel=0.05)


def test_scores_of_a_heavy_penalty_come_out_as_sure_as_they_are():
    true = np.array([1e-5, 2e-5])
    scores, Y = drawn(true, 20_000)
    found = fit_temperatures(scores, Y)
    assert found == pytest.approx(true, rel=0.05)
    assert at_bounds(found, scores, Y) == [False, False]


def test_a_class_whose_scores_are_always_right_is_at_the_bound():
    scores, Y = drawn(np.ones(2), 500)
    scores[:, 0] = np.where(Y[:, 0], 1.0, -1.0)
    assert at_bounds(fit_temperatures(scores, Y), scores, Y) == [True, False]


def test_a_class_of_few_rows_takes_the_common_temperature():
    scores, Y = drawn(np.array([2.0, 2.0, 2.0]), 5000)
    Y[:, 1] = False
    Y[np.argsort(scores[:, 1])[-FEWEST + 1 :], 1] = True  # on top by chance: alone, it would go to a bound
    found = fit_temperatures(scores, Y)
    assert found[1] == pytest.approx(fit_temperatures(scores.reshape(-1, 1), Y.reshape(-1, 1))[0])
    assert found[0] == pytest.approx(2, rel=0.1)
    Y[np.argsort(scores[:, 1])[-FEWEST:], 1] = True
    assert fit_temperatures(scores, Y)[1] > 19


def test_log_losses_are_sklearns_class_by_class_and_finite():
    scores, Y = drawn(np.array([1.0, 2.0]), 50)
    temperatures = np.array([1.5, 0.7])
    P = probabilities(scores, temperatures)
    expected = np.mean([log_loss(y, p) for y, p in zip(Y.T, P.T, strict=True)])
    assert log_losses(scores, Y, temperatures).mean() == pytest.approx(expected)
    assert np.isfinite(log_losses(np.array([[-1e4]]), np.array([[True]]), np.ones(1))).all()


def test_ece_of_classes_that_are_there_half_as_often_as_is_said():
    Y = np.stack([np.arange(300) % 5 < 2, np.arange(300) % 5 < 1], axis=1)
    assert classwise_ece(np.full((300, 2), [0.8, 0.4]), Y) == pytest.approx(0.3)
