import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from classify.evaluate import draw_resamples
from classify.multilabel import ranking
from classify.multilabel.ranking import average_precisions, drawn_ap, drawn_aps, mean_ap, steps_of


def some_scores(seed: int, n: int, k: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores that say something of them, with ties: there are only so many levels."""
    rng = np.random.default_rng(seed)
    Y = rng.random((n, k)) < rng.uniform(0.1, 0.9, k)
    return Y, np.round((rng.normal(size=(n, k)) + Y) * levels) / levels


@given(st.integers(0, 1000), st.integers(1, 40), st.sampled_from([1, 3, 100]))
def test_ap_is_sklearns_also_with_ties(seed, n, levels):
    Y, scores = some_scores(seed, n, 2, levels)
    for y, column, ap in zip(Y.T, scores.T, average_precisions(Y, scores), strict=True):
        if y.any():
            assert ap == pytest.approx(average_precision_score(y, column), abs=1e-12)
        else:
            assert np.isnan(ap)


@pytest.mark.parametrize("groups", [None, np.arange(80) // 3])
def test_each_draw_is_sklearns_with_sample_weights(groups):
    Y, scores = some_scores(1, 80, 3, 5)
    resamples = draw_resamples(80, groups, 0)
    counts = resamples.counts[:, :40]
    found = drawn_aps(Y, scores, resamples.unit, counts)
    weights = counts[resamples.unit]
    for code in range(3):
        expected = [average_precision_score(Y[:, code], scores[:, code], sample_weight=w) for w in weights.T]
        np.testing.assert_allclose(found[code], expected, atol=1e-6)


def test_draws_come_out_alike_in_blocks_of_any_size(monkeypatch):
    Y, scores = some_scores(2, 60, 1, 50)
    resamples = draw_resamples(60, None, 0)
    whole = drawn_aps(Y, scores, resamples.unit, resamples.counts)
    monkeypatch.setattr(ranking, "MAX_CELLS", 100)
    np.testing.assert_array_equal(drawn_aps(Y, scores, resamples.unit, resamples.counts), whole)


def test_a_draw_without_a_positive_has_no_ap():
    y, scores = np.array([True, False, False]), np.array([0.9, 0.5, 0.1])
    counts = np.array([[0, 1], [2, 1], [1, 1]], dtype=np.float32)
    assert drawn_ap(steps_of(y, scores, np.arange(3), 3), counts).tolist() == pytest.approx([np.nan, 1], nan_ok=True)
    assert np.isnan(average_precisions(np.zeros((3, 1), dtype=bool), scores[:, None])).all()


def plain_voc07(y: np.ndarray, scores: np.ndarray) -> float:
    """The development kit's loop, for scores without ties."""
    ranked = y[np.argsort(-scores)]
    hits = np.cumsum(ranked)
    recall, precision = hits / hits[-1], hits / np.arange(1, len(y) + 1)
    best = [
        max((p for p, r in zip(precision, recall, strict=True) if r >= t / 10 - 1e-12), default=0) for t in range(11)
    ]
    return sum(best) / 11


@pytest.mark.parametrize("seed", range(5))
def test_voc07_is_the_eleven_point_mean(seed):
    rng = np.random.default_rng(seed)
    y, scores = rng.random(50) < 0.3, rng.normal(size=50)
    found = average_precisions(y[:, None], (scores + y)[:, None], "voc07")
    assert found[0] == pytest.approx(plain_voc07(y, scores + y), abs=1e-12)


def test_mean_ap_is_over_the_classes_that_occur():
    aps = np.array([[0.5, np.nan], [np.nan, np.nan], [1.0, np.nan]])
    assert mean_ap(aps).tolist() == pytest.approx([0.75, np.nan], nan_ok=True)
