import numpy as np
import pytest
from sklearn.metrics import f1_score

from classify.evaluate import Resamples, draw_resamples
from classify.multilabel.thresholds import GRID, _drawn_f1, choose_thresholds


def everyone_once(n: int) -> Resamples:
    return Resamples(np.arange(n), np.ones((n, 2), dtype=np.float32), False)


def test_f1_at_every_threshold_is_sklearns_with_the_weights_of_the_draw():
    rng = np.random.default_rng(0)
    y, groups = rng.random(60) < 0.3, np.arange(60) // 2
    p = np.clip(rng.choice(np.append(GRID, 0.2), 60), 0, 1)  # on thresholds too: from there on the class is said
    resamples = draw_resamples(60, groups, 0)
    found = _drawn_f1(p, y, resamples)
    for at in (0, 30, 55, 80):
        for draw in range(5):
            weights = resamples.counts[resamples.unit, draw]
            expected = f1_score(y, p >= GRID[at], sample_weight=weights, zero_division=0)
            assert found[at, draw] == pytest.approx(expected, abs=1e-6)


def test_classes_that_are_easy_keep_the_common_threshold_in_the_middle():
    Y = np.random.default_rng(0).random((100, 3)) < 0.4
    found = choose_thresholds(np.where(Y, 0.9, 0.1), Y, draw_resamples(100, None, 0))
    assert found.values.tolist() == [0.5] * 3
    assert not found.own.any()


def test_a_class_that_is_surely_better_with_its_own_threshold_gets_it():
    rng = np.random.default_rng(0)
    Y = rng.random((400, 3)) < 0.3
    P = np.where(Y, 0.8, 0.2) + rng.normal(size=Y.shape) * 0.01
    P[:, 2] = np.where(Y[:, 2], 0.12, 0.03)
    found = choose_thresholds(P, Y, draw_resamples(400, None, 0))
    assert found.own.tolist() == [False, False, True]
    assert 0.03 < found.values[2] <= 0.12
    assert (found.values[:2] == found.common).all()
    assert 0.25 < found.common < 0.75


def test_the_luck_of_a_few_positives_moves_no_threshold():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.05, 0.95, (600, 6))
    Y = rng.random(p.shape) < p
    Y[:, 5] &= rng.random(600) < 0.02
    found = choose_thresholds(p, Y, draw_resamples(600, None, 0))
    assert Y[:, 5].sum() < 12
    assert not found.own[5]
    assert found.common == pytest.approx(0.35, abs=0.1)  # half of the best F1, of about 0.7


def test_a_draw_without_the_class_counts_for_nothing():
    y, p = np.array([True, False, False]), np.array([0.9, 0.2, 0.1])
    counts = np.array([[0, 1], [2, 1], [1, 1]], dtype=np.float32)
    found = _drawn_f1(p, y, Resamples(np.arange(3), counts, False))
    assert np.isnan(found[:, 0]).all()
    assert found[60, 1] == 1
    assert choose_thresholds(p[:, None], y[:, None], everyone_once(3)).values.tolist() == [0.5]
