import numpy as np
import pytest
from scipy.special import expit

from classify.evaluate import draw_resamples
from classify.multilabel.decide import decide, decide_across
from classify.multilabel.split import make_folds
from classify.probe.linear import Linear


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 3)) * 2 - 1
    return logits * [1.0, 4.0, 0.5], rng.random(logits.shape) < expit(logits)


def test_a_calibrated_head_says_what_the_decisions_say(noisy):
    scores, Y = noisy
    found = decide(scores, Y, draw_resamples(300, None, 0))
    head = Linear(np.zeros(3), np.ones(3), np.eye(3), np.zeros(3))
    shares = expit(found.calibrated(head).scores(scores))
    np.testing.assert_allclose(shares, expit(scores / found.temperatures))
    np.testing.assert_array_equal(shares >= found.thresholds.values, found.predicted(scores))


def test_no_row_has_a_say_in_its_own_decision(noisy):
    scores, Y = noisy
    folds, _ = make_folds(Y, None, 3, 0)
    resamples = draw_resamples(300, None, 0)
    predicted, losses = decide_across(scores, Y, folds, resamples)
    _, here = folds[1]
    turned = Y.copy()
    turned[here] = ~turned[here]
    again, dearer = decide_across(scores, turned, folds, resamples)
    np.testing.assert_array_equal(again[here], predicted[here])
    assert dearer[here].mean() > losses[here].mean()
    elsewhere = np.setdiff1d(np.arange(300), here)
    assert (again[elsewhere] != predicted[elsewhere]).any()
