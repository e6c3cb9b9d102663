import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_recall_fscore_support

from classify.evaluate import Resamples, draw_resamples
from classify.multilabel.data import Part
from classify.multilabel.metrics import METRICS, PER_CLASS, evaluate_multi
from extract.errors import FitError


def part_of(Y: np.ndarray, unknown: np.ndarray | None = None) -> Part:
    n = len(Y)
    return Part(np.arange(n), Y, np.zeros(n, dtype=np.int64) if unknown is None else unknown, None)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    Y = rng.random((120, 4)) < [0.5, 0.2, 0.3, 0.7]
    scores = rng.normal(size=(120, 4)) + 2 * Y
    return Y, scores, scores > 1


def sklearns(
    Y: np.ndarray, scores: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
) -> list[float]:
    f1 = [f1_score(Y, predicted, average=each, sample_weight=weights, zero_division=0) for each in ("micro", "macro")]
    ap = average_precision_score(Y, scores, sample_weight=weights)
    return [ap, *f1, accuracy_score(Y, predicted, sample_weight=weights)]


def test_metrics_are_sklearns(drawn):
    found = evaluate_multi(part_of(drawn[0]), drawn[1], drawn[2], draw_resamples(120, None, 0))
    assert [found.overall[name]["value"] for name in METRICS] == pytest.approx(sklearns(*drawn), abs=1e-9)
    expected = precision_recall_fscore_support(drawn[0], drawn[2])
    for code, row in enumerate(found.per_class):
        assert [row[name]["value"] for name in PER_CLASS] == pytest.approx([each[code] for each in expected[:3]])


@pytest.mark.parametrize("groups", [None, np.arange(120) // 4])
def test_intervals_are_those_of_a_plain_loop_over_the_draws(drawn, groups):
    resamples = draw_resamples(120, groups, 3)
    few = Resamples(resamples.unit, resamples.counts[:, :60], resamples.grouped)
    found = evaluate_multi(part_of(drawn[0]), drawn[1], drawn[2], few).overall
    values = np.array([sklearns(*drawn, weights) for weights in few.counts[few.unit].T])
    for name, column in zip(METRICS, values.T, strict=True):
        value = found[name]["value"]
        expected = value + few.widening * (np.quantile(column, [0.025, 0.975]) - value)
        assert (found[name]["low"], found[name]["high"]) == pytest.approx(tuple(expected), abs=1e-5)


def test_labels_that_are_no_class_are_misses(drawn):
    Y, scores, _ = drawn
    unknown = np.zeros(120, dtype=np.int64)
    unknown[:30] = 2
    found = evaluate_multi(part_of(Y, unknown), scores, Y, draw_resamples(120, None, 0)).overall
    assert found["subset_accuracy"]["value"] == 0.75
    assert found["micro_f1"]["value"] == pytest.approx(2 * Y.sum() / (2 * Y.sum() + 60))
    assert found["macro_f1"]["value"] == 1


def test_a_class_that_no_row_has_is_none_and_not_zero(drawn):
    Y, scores, predicted = (each.copy() for each in drawn)
    Y[:, 1] = predicted[:, 1] = False
    found = evaluate_multi(part_of(Y), scores, predicted, draw_resamples(120, None, 0))
    assert found.per_class[1] == {"ap": None, "precision": None, "recall": None, "f1": None}
    kept = [0, 2, 3]
    assert found.overall["map"]["value"] == pytest.approx(average_precision_score(Y[:, kept], scores[:, kept]))
    assert found.overall["macro_f1"]["value"] == pytest.approx(
        f1_score(Y[:, kept], predicted[:, kept], average="macro")
    )


def test_losses_are_averaged_and_drawn(drawn):
    losses = np.arange(120.0)
    found = evaluate_multi(part_of(drawn[0]), drawn[1], drawn[2], draw_resamples(120, None, 0), losses=losses).overall
    assert found["log_loss"]["value"] == 59.5
    assert 50 < found["log_loss"]["low"] < 59.5 < found["log_loss"]["high"] < 69


def test_images_without_any_class_measure_nothing(drawn):
    with pytest.raises(FitError, match="none of the 120 images"):
        evaluate_multi(part_of(drawn[0] & False), drawn[1], drawn[2], draw_resamples(120, None, 0))
