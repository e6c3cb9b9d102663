import numpy as np
import pytest

from classify.probe.linear import Linear
from classify.scoring import SCORERS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype(np.float32)
MEAN, SCALE, COEF, INTERCEPT = RNG.normal(size=3), np.array([2.0, np.inf, 0.5]), RNG.normal(size=(2, 3)), np.ones(2)


def test_features_that_are_dropped_get_no_weight():
    head = Linear.of(MEAN, SCALE, COEF, INTERCEPT)
    assert all(np.isfinite(each).all() for each in head.arrays().values())
    assert np.allclose(head.scores(X), ((X - MEAN) / SCALE) @ COEF.T + 1)
    moved = X.copy()
    moved[:, 1] += 100
    assert np.array_equal(head.scores(moved), head.scores(X))


def test_a_bundle_scores_as_the_engine_does():
    head = Linear.of(MEAN, SCALE, COEF, INTERCEPT)
    assert SCORERS["linear"](head.arrays(), X) == pytest.approx(head.scores(X))
