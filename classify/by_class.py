"""The classes one by one, each measure with its 95 % interval."""

from typing import Any

import numpy as np

from classify.evaluate import Resamples, per_class, per_unit, share_of, tally, wilson


def measured(
    matrix: dict[str, Any], y: np.ndarray, predicted: np.ndarray, resamples: Resamples
) -> list[dict[str, Any]]:
    """Return `evaluate.per_class` of a confusion matrix with `intervals`: {measure: {value, low, high}} of each class.

    y, predicted (n,) codes are what the matrix counts. Recall and precision have Wilson's intervals, over as many rows
    as the groups are worth; F1 that of both at their ends, which is wider than it need be. There is none for 0 / 0.
    """
    tallies = per_unit(tally(y, predicted), resamples.unit)
    drawn = np.asarray(tallies.T @ resamples.counts, dtype=np.float64).reshape(3, -1, resamples.counts.shape[1])
    counts = np.asarray(tallies.sum(axis=0)).reshape(3, -1)
    units = np.bincount(tallies.indices, minlength=counts.size).reshape(3, -1)
    rows = per_class(matrix)
    for code, row in enumerate(rows):
        row["intervals"] = found = {}
        for part, name in enumerate(("recall", "precision")):
            if row[name] is not None:
                with np.errstate(invalid="ignore"):
                    shares = drawn[2, code] / drawn[part, code]  # NaN in a draw without the class
                size = int(counts[part, code]), int(units[part, code])
                found[name] = share_of(row[name], shares, size, resamples)
        if row["f1"] is not None:
            found["f1"] = _f1(row["f1"], found)
    return rows


def _f1(value: float, found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Combine the ends of recall and precision; of the one that there is none of, nothing is known."""
    low, high = wilson(0, 0)
    ends = [found.get(name, {"low": low, "high": high}) for name in ("recall", "precision")]
    f1 = {end: _harmonic(*(each[end] for each in ends)) for end in ("low", "high")}
    return {"value": value, "low": min(f1["low"], value), "high": max(f1["high"], value)}


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0
