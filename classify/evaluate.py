"""How good: each metric with its 95 % interval, the confusion matrix, and the classes one by one."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
"""What a search may maximise."""

Z95 = 1.959963984540054
N_RESAMPLES = 1000


@dataclass(frozen=True)
class Resamples:
    """Bootstrap draws, shared by everything that is compared on the same rows.

    `unit` (n,) says which unit each row belongs to: itself, or its group. `counts` (units, B) float32 says how often
    each draw took each unit.
    """

    unit: np.ndarray
    counts: np.ndarray
    grouped: bool


def group_codes(groups: Sequence[str], contents: Sequence[bytes], near: np.ndarray | None = None) -> np.ndarray | None:
    """Number what belongs together: images of one group ("" for none), of equal content, or near-duplicates, in chains.

    `contents` are digests; one of zeros stands for bytes that are not known. `near` has one number for the
    near-duplicates of each other. (n,), (n,), (n,) -> (n,) int64, or None where every image stands alone.
    """
    n = len(groups)
    columns = [
        _numbered([group or at for at, group in enumerate(groups)]),
        _numbered([content if any(content) else at for at, content in enumerate(contents)]),
        np.arange(n) if near is None else np.unique(near, return_inverse=True)[1],
    ]
    if not any(groups) and all(len(np.unique(column)) == n for column in columns):
        return None
    rows, keys = np.tile(np.arange(n), 3), np.concatenate([column + n * at for at, column in enumerate(columns, 1)])
    edges = csr_array((np.ones(3 * n, dtype=np.int8), (rows, keys)), shape=(4 * n, 4 * n))
    return connected_components(edges, directed=False)[1][:n].astype(np.int64)


def _numbered(keys: Sequence[Hashable]) -> np.ndarray:
    number = {key: at for at, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], dtype=np.int64)


def draw_resamples(n: int, groups: np.ndarray | None, seed: int) -> Resamples:
    """Draw rows, or whole groups where given, with replacement: groups (n,) -> N_RESAMPLES draws."""
    unit = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = int(unit.max()) + 1 if n else 0
    rng = np.random.default_rng(seed)
    counts = np.empty((n_units, N_RESAMPLES), dtype=np.float32)
    for draw in range(N_RESAMPLES):
        counts[:, draw] = np.bincount(rng.integers(0, n_units, n_units), minlength=n_units)
    return Resamples(unit, counts, groups is not None)


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927): 146 of 153 -> (0.909, 0.978)."""
    if n <= 0:
        return 0.0, 1.0
    p, z2 = successes / n, Z95**2
    centre, half = p + z2 / (2 * n), Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z2 / n)), min(1.0, (centre + half) / (1 + z2 / n))


def evaluate(
    y: np.ndarray, predicted: np.ndarray, resamples: Resamples, losses: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """Measure predictions: y (n,), predicted (n,) codes, losses (n,) -> {metric: {value, low, high}}."""
    tallies = _tallies(y, predicted)
    values = _from_tallies(tallies.sum(axis=0)[:, None])
    drawn = _from_tallies(_per_unit(tallies, resamples.unit).T @ resamples.counts)
    found = {name: _interval(float(values[name][0]), drawn[name]) for name in METRICS}
    found["accuracy"] = _accuracy(found["accuracy"]["value"], drawn["accuracy"], resamples)
    if losses is not None:
        found["log_loss"] = _interval(float(losses.mean()), _drawn_mean(losses, resamples))
    return found


def values_of(y: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Measure many predictions of the same rows, without intervals: y (n,), codes (m, n) -> {metric: (m,)}."""
    n_labels = int(max(y.max(), predicted.max(initial=0))) + 1
    support = np.bincount(y, minlength=n_labels)
    counted = [
        np.concatenate([support, *(np.bincount(each, minlength=n_labels) for each in (codes, y[codes == y]))])
        for codes in predicted
    ]
    return _from_tallies(np.stack(counted, axis=1))


def _tallies(y: np.ndarray, predicted: np.ndarray) -> csr_array:
    """Count for each row its label, its prediction and the agreement: (n,), (n,) -> (n, 3 L)."""
    n, n_labels = len(y), int(max(y.max(), predicted.max())) + 1
    rows, hit = np.arange(n), np.flatnonzero(y == predicted)
    columns = np.concatenate([y, predicted + n_labels, y[hit] + 2 * n_labels])
    ones = np.ones(len(columns), dtype=np.float32)
    return csr_array((ones, (np.concatenate([rows, rows, hit]), columns)), shape=(n, 3 * n_labels))


def _per_unit(tallies: csr_array, unit: np.ndarray) -> csr_array:
    """Add up the rows of each unit: (n, 3 L) -> (units, 3 L)."""
    n_units = int(unit.max()) + 1
    member = csr_array((np.ones(len(unit), dtype=np.float32), (unit, np.arange(len(unit)))), (n_units, len(unit)))
    return member @ tallies


def _from_tallies(tallies: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the metrics of each draw: (3 L, B) -> {metric: (B,)}; as sklearn, over the labels that occur."""
    support, predicted, hits = np.split(np.asarray(tallies, dtype=np.float64), 3)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return {
        "accuracy": hits.sum(axis=0) / support.sum(axis=0),
        "balanced_accuracy": recall.sum(axis=0) / (support > 0).sum(axis=0),
        "macro_f1": f1.sum(axis=0) / (support + predicted > 0).sum(axis=0),
    }


def _interval(value: float, drawn: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": value, "low": min(float(low), value), "high": max(float(high), value)}


def _accuracy(value: float, drawn: np.ndarray, resamples: Resamples) -> dict[str, float]:
    """Wilson's interval; over as many rows as the groups are worth, where images of a group are alike (Kish)."""
    n = float(len(resamples.unit))
    if resamples.grouped:
        spread = value * (1 - value) / n
        n = n / max(1.0, float(drawn.var()) / spread) if spread else float(len(resamples.counts))
    low, high = wilson(value * n, n)
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def _drawn_mean(values: np.ndarray, resamples: Resamples) -> np.ndarray:
    totals = np.bincount(resamples.unit, weights=values).astype(np.float32)
    sizes = np.bincount(resamples.unit).astype(np.float32)
    return (totals @ resamples.counts) / (sizes @ resamples.counts)


def confusion(y: np.ndarray, predicted: np.ndarray, labels: list[str], n_classes: int) -> dict[str, Any]:
    """Count (label, prediction) pairs; labels beyond the classes are rows without a column."""
    counts = np.zeros((len(labels), n_classes), dtype=np.int64)
    np.add.at(counts, (y, predicted), 1)
    return {"true": labels, "predicted": labels[:n_classes], "counts": counts.tolist()}


def per_class(matrix: dict[str, Any]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each label of a confusion matrix; None for 0 / 0."""
    counts = np.asarray(matrix["counts"])
    rows = []
    for code, name in enumerate(matrix["true"]):
        known = code < counts.shape[1]
        hits, support = int(counts[code, code]) if known else 0, int(counts[code].sum())
        guesses = int(counts[:, code].sum()) if known else 0
        rows.append(
            {
                "class": name,
                "precision": hits / guesses if guesses else None,
                "recall": hits / support if support else None,
                "f1": 2 * hits / (support + guesses) if support + guesses else None,
                "support": support,
            }
        )
    return rows
