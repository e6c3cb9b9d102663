import numpy as np
import pytest

from classify.calibrate import at_bound, fit_temperature, losses, nll, softmax


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_found(true):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20_000, 5)) * 2
    shares = softmax(scores).cumsum(axis=1)
    y = (rng.random((20_000, 1)) > shares).sum(axis=1).clip(max=4)
    temperature = fit_temperature(scores * true, y)
    assert temperature == pytest.approx(true, rel=0.03)
    assert nll(scores * true, y, temperature) <= nll(scores * true, y)
    assert not at_bound(temperature)


def test_scores_that_are_always_right_stop_at_the_bound():
    assert at_bound(fit_temperature(np.eye(3)[np.arange(30) % 3], np.arange(30) % 3))


def test_an_unseen_label_is_dear_and_finite():
    found = losses(np.array([[0.25, 0.75], [1.0, 0.0], [1.0, 0.0]]), np.array([0, 1, 2]))
    assert found == pytest.approx([-np.log(0.25), 36.04, 36.04], abs=0.01)
