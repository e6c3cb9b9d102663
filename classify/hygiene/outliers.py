"""Images unlike all others: far from their k-th nearest neighbour, by a measure that outliers do not move."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from classify.hygiene.neighbours import nearest, seconds_for

THRESHOLD = 3.5
"""Robust z-score from which a row is an outlier: Iglewicz and Hoaglin 1993."""

MIN_ROWS = 30
"""Among fewer there is no telling what is usual."""

MAD_TO_SD = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""

MAX_SECONDS = 60.0
Read = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Outliers:
    """Positions (m,) among the rows given, the farthest first, with distance 1 - cos (m,) and z-score (m,).

    `among` says what they are far from: "all" images, those of their "class", or "nothing": not searched.
    """

    at: np.ndarray
    distance: np.ndarray
    score: np.ndarray
    among: str
    note: str = ""

    def __len__(self) -> int:
        return len(self.at)


def find_outliers(
    read: Read, dims: int, y: np.ndarray, *, max_seconds: float = MAX_SECONDS, device: str = "cpu"
) -> Outliers:
    """Find rows far from all others: `read(at)` gives rows of length 1 (m, dims), y (n,) their labels.

    The distance is that to the k-th nearest of all rows, k = max(10, sqrt(n_c)) with the n_c rows of its class; where
    this would take longer than allowed, to the k-th nearest of its own class.
    """
    n, sizes = len(y), np.bincount(y, minlength=1)
    if n < MIN_ROWS:
        return _none(f"outliers are not looked for among fewer than {MIN_ROWS} images")
    k = np.maximum(10, np.sqrt(sizes[y]).astype(np.int64))
    if seconds_for(n, dims) <= max_seconds:
        return _beyond(_kth(read(np.arange(n)), k, device), "all")
    if sum(seconds_for(size, dims) for size in sizes.tolist()) <= max_seconds:
        note = f"outliers are looked for class by class: among all {n} images it would take minutes"
        return _beyond(_by_class(read, y, k, device), "class", note)
    return _none(f"outliers are not looked for: among {n} images it would take minutes")


def _kth(unit: np.ndarray, k: np.ndarray, device: str) -> np.ndarray:
    """Return the distance of each row to its k-th nearest other one: (n, D), (n,) -> (n,) float32."""
    k = np.minimum(k, len(unit) - 1)
    distances, _ = nearest(unit, int(k.max()), device)
    return distances[np.arange(len(unit)), k - 1]


def _by_class(read: Read, y: np.ndarray, k: np.ndarray, device: str) -> np.ndarray:
    """Return the same among the rows of its own class; NaN for rows of a class of too few."""
    found = np.full(len(y), np.nan, np.float32)
    for code in np.unique(y):
        rows = np.flatnonzero(y == code)
        if len(rows) >= MIN_ROWS:
            found[rows] = _kth(read(rows), k[rows], device)
    return found


def _beyond(distance: np.ndarray, among: str, note: str = "") -> Outliers:
    """Choose the distances beyond the threshold, by the median and the median absolute deviation of all."""
    usual = np.nanmedian(distance) if np.isfinite(distance).any() else np.nan
    spread = MAD_TO_SD * np.nanmedian(abs(distance - usual)) if np.isfinite(usual) else 0.0
    if not spread > 0:
        return Outliers(*_EMPTY, among, note)
    score = (distance - usual) / spread
    at = np.flatnonzero(score > THRESHOLD)
    at = at[np.argsort(-score[at], kind="stable")]
    return Outliers(at, distance[at], score[at], among, note)


_EMPTY = (np.array([], dtype=np.int64), np.array([], dtype=np.float32), np.array([], dtype=np.float32))


def _none(note: str) -> Outliers:
    return Outliers(*_EMPTY, "nothing", note)
