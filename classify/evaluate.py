"""How good: each metric with its 95 % interval, the confusion matrix, and the classes one by one."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import t

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
"""What a search may maximise."""

Z95 = 1.959963984540054
N_RESAMPLES = 1000
MAX_UNITS = 1 << 14
"""Units that are drawn one by one: 65 MB of counts. More are drawn in so many random parts, as in a random groups
estimate of variance (Wolter 2007, chapter 2): the standard error of a mean is then known to 0.6 %."""


@dataclass(frozen=True)
class Resamples:
    """Bootstrap draws, shared by everything that is compared on the same rows.

    `unit` (n,) says which unit each row belongs to: itself, its group, or a random part of very many of these. `counts`
    (units, B) float32 says how often each draw took each unit.
    """

    unit: np.ndarray
    counts: np.ndarray
    grouped: bool

    @cached_property
    def widening(self) -> float:
        """By how much intervals of draws of few units are too narrow: 1 for many, 9.2 for two, inf for one.

        Draws of G equal units have (G - 1) / G of the variance that there is, and G - 1 degrees of freedom (Cameron,
        Gelbach and Miller 2008); units of unequal size count as (sum n)^2 / sum n^2 equal ones (Kish), two at least.
        """
        sizes = np.bincount(self.unit).astype(np.float64)
        if len(sizes) < 2:
            return math.inf
        worth = max(2.0, float(sizes.sum() ** 2 / (sizes**2).sum()))
        return float(t.ppf(0.975, worth - 1)) / Z95 * math.sqrt(worth / (worth - 1))


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
    if n_units > MAX_UNITS:
        unit, n_units = rng.permutation(n_units)[unit] % MAX_UNITS, MAX_UNITS
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
    tallies = tally(y, predicted)
    values = _from_tallies(tallies.sum(axis=0)[:, None])
    drawn = _from_tallies(per_unit(tallies, resamples.unit).T @ resamples.counts)
    found = {name: interval(float(values[name][0]), drawn[name], resamples.widening) for name in METRICS}
    sizes = len(y), len(resamples.counts)
    found["accuracy"] = share_of(found["accuracy"]["value"], drawn["accuracy"], sizes, resamples)
    if losses is not None:
        found["log_loss"] = mean_of(losses, resamples)
    return found


def interval(value: float, drawn: np.ndarray, widening: float = 1.0) -> dict[str, float]:
    """Return a share with the middle 95 % of the draws (B,) that have one, NaN being none: {value, low, high}.

    `widening` is that of the draws. Where it is inf they say nothing, and all rows count as one.
    """
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return {"value": value, "low": value, "high": value}
    low, high = wilson(value, 1) if math.isinf(widening) else _widened(value, known, widening)
    return {"value": value, "low": max(min(low, value), 0.0), "high": min(max(high, value), 1.0)}


def mean_of(values: np.ndarray, resamples: Resamples) -> dict[str, float]:
    """Return the mean of values (n,) of any size, with its interval: of one unit the range of its rows."""
    value = float(values.mean())
    if math.isinf(resamples.widening):
        return {"value": value, "low": float(values.min()), "high": float(values.max())}
    totals = np.bincount(resamples.unit, weights=values).astype(np.float32)
    sizes = np.bincount(resamples.unit).astype(np.float32)
    low, high = _widened(value, (totals @ resamples.counts) / (sizes @ resamples.counts), resamples.widening)
    return {"value": value, "low": max(low, float(values.min())), "high": high}


def _widened(value: float, drawn: np.ndarray, widening: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return value - widening * max(0.0, value - float(low)), value + widening * max(0.0, float(high) - value)


def values_of(y: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Measure many predictions of the same rows, without intervals: y (n,), codes (m, n) -> {metric: (m,)}."""
    n_labels = int(max(y.max(), predicted.max(initial=0))) + 1
    support = np.bincount(y, minlength=n_labels)
    counted = [
        np.concatenate([support, *(np.bincount(each, minlength=n_labels) for each in (codes, y[codes == y]))])
        for codes in predicted
    ]
    return _from_tallies(np.stack(counted, axis=1))


def tally(y: np.ndarray, predicted: np.ndarray) -> csr_array:
    """Count for each row its label, its prediction and the agreement: (n,), (n,) -> (n, 3 L)."""
    n, n_labels = len(y), int(max(y.max(), predicted.max())) + 1
    rows, hit = np.arange(n), np.flatnonzero(y == predicted)
    # Codes may be of a type that the sum would not fit into.
    columns = np.concatenate([y, predicted.astype(np.int64) + n_labels, y[hit].astype(np.int64) + 2 * n_labels])
    ones = np.ones(len(columns), dtype=np.float32)
    return csr_array((ones, (np.concatenate([rows, rows, hit]), columns)), shape=(n, 3 * n_labels))


def per_unit(tallies: csr_array, unit: np.ndarray) -> csr_array:
    """Add up the rows of each unit: (n, m) -> (units, m)."""
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


def share_of(value: float, drawn: np.ndarray, sizes: tuple[int, int], resamples: Resamples) -> dict[str, float]:
    """Return a share of `sizes` rows and units with Wilson's interval: drawn (B,) shares, NaN for none.

    Where images of a group are alike it is that of as many rows as the groups are worth (Kish).
    """
    n = _worth(value, drawn[~np.isnan(drawn)], sizes, resamples) if resamples.grouped else float(sizes[0])
    low, high = wilson(value * n, n)
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def _worth(value: float, drawn: np.ndarray, sizes: tuple[int, int], resamples: Resamples) -> float:
    """Say how many rows that stand alone would tell as much of a share: the units, where no spread says more."""
    (n, n_units), spread = sizes, value * (1 - value) / sizes[0]
    if not spread or n_units < 2:
        return float(n_units)
    return max(1.0, n / max(1.0, float(drawn.var()) * resamples.widening**2 / spread))


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
