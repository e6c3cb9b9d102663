"""What a protocol's answers are worth, each with its 95 % interval."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student

from classify.evaluate import Resamples, draw_resamples, evaluate
from classify.protocols.protocol import ProtocolData

DRAWS_AT_ONCE = 50
"""Bootstrap draws whose counts are sorted at a time: bounds the memory to as many times the rows."""


def score(y: np.ndarray, predicted: np.ndarray, metric: str) -> float:
    """Measure without an interval: y (n,), predicted (n,) -> 0..1; mean per class is over the classes that occur."""
    hits = y == predicted
    if metric == "accuracy":
        return float(hits.mean())
    support = np.bincount(y)
    return float((np.bincount(y, weights=hits)[support > 0] / support[support > 0]).mean())


def measure(data: ProtocolData, predicted: np.ndarray, metric: str, seed: int) -> dict[str, float]:
    """Measure on the test rows: predicted (n_test,) -> value, low, high; Wilson for accuracy, else bootstrap."""
    resamples = draw_resamples(len(data.y_test), data.groups_test, seed)
    return evaluate(data.y_test, predicted, resamples)[metric]


def over_draws(values: Sequence[float]) -> dict[str, float]:
    """Return the mean over draws and Student's 95 % interval of it, kept within 0..1."""
    found = np.asarray(values, dtype=np.float64)
    half = float(student.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    value = float(found.mean())
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def average_precision(positive: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Area under the interpolated precision-recall curve, as VOC 2010 has it: (n,) bool, (n,) -> (B,) in 0..1.

    `counts` (n, B) says how often each of B draws took each row; a draw without a positive row gives NaN.
    """
    counts = np.ones((len(scores), 1)) if counts is None else counts
    order = np.argsort(scores, kind="stable")[::-1]
    taken = counts[order].astype(np.float64)
    hits = taken * positive[order, None]
    precision = hits.cumsum(axis=0) / np.maximum(taken.cumsum(axis=0), 1)
    best_from_here = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    total = hits.sum(axis=0)
    return np.divide((hits * best_from_here).sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)


def mean_ap(targets: np.ndarray, scores: np.ndarray) -> float:
    """Average over the classes that have positive rows: (n, C) bool, (n, C) -> 0..1."""
    return float(_mean_ap(targets, scores, None)[0])


def mean_average_precision(targets: np.ndarray, scores: np.ndarray, resamples: Resamples) -> dict[str, float]:
    """Average over the classes that have positive rows: (n, C) bool, (n, C) -> value, low, high by bootstrap."""
    value = mean_ap(targets, scores)
    n_blocks = max(1, resamples.counts.shape[1] // DRAWS_AT_ONCE)
    blocks = np.array_split(resamples.counts, n_blocks, axis=1)
    drawn = np.concatenate([_mean_ap(targets, scores, counts[resamples.unit]) for counts in blocks])
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    return {"value": value, "low": min(float(low), value), "high": max(float(high), value)}


def _mean_ap(targets: np.ndarray, scores: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """Average over the classes in each draw, NaN in one that has no positive row of any: -> (B,)."""
    found = np.stack([average_precision(targets[:, c], scores[:, c], counts) for c in range(targets.shape[1])])
    known = np.isfinite(found)
    return np.where(known, found, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
