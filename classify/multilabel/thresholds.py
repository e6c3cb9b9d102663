"""From which probability on a class is said to be there: chosen by F1 on probabilities out of fold."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from classify.evaluate import Resamples

GRID = expit(np.linspace(-7, 3, 81))
"""Candidates, evenly in log-odds: of calibrated probabilities the best is half the best F1 (Lipton et al. 2014)."""

EVEN = 0.5
N_DRAWS = 200
"""Bootstrap draws: they smooth the F1 curve, and tell how sure a difference is."""

ALIKE = 1e-9


@dataclass(frozen=True)
class Thresholds:
    """`values` (k,), `common` to all classes but those that are their `own` (k,) bool."""

    values: np.ndarray
    common: float
    own: np.ndarray


def choose_thresholds(P: np.ndarray, Y: np.ndarray, resamples: Resamples) -> Thresholds:
    """Choose the threshold of each class: probabilities out of fold (n, k), Y (n, k) bool, never training scores.

    One threshold of the best macro F1 serves all, but for a class whose own best is better by more than one standard
    error of the difference: the best of few positives is mostly luck. Both by F1 averaged over bootstrap draws.
    """
    curves = [_drawn_f1(p, y, resamples) for p, y in zip(P.T, Y.T, strict=True)]
    means = np.stack([_mean(curve) for curve in curves])
    common = _best(means.mean(axis=0), GRID.searchsorted(EVEN))
    own = [_best(mean, common) for mean in means]
    better = np.array([_surely_better(*each, common) for each in zip(curves, own, strict=True)])
    return Thresholds(np.where(better, GRID[own], GRID[common]), float(GRID[common]), better)


def _best(curve: np.ndarray, centre: int) -> int:
    """Return where a curve is highest, of equals the nearest to the centre: (G,) -> a number."""
    highest = np.flatnonzero(curve >= curve.max() - ALIKE)
    return int(highest[np.abs(highest - centre).argmin()])


def _surely_better(curve: np.ndarray, own: int, common: int) -> bool:
    gain = curve[own] - curve[common]
    gain = gain[~np.isnan(gain)]
    return len(gain) > 1 and bool(gain.mean() > max(gain.std(ddof=1), ALIKE))


def _mean(curve: np.ndarray) -> np.ndarray:
    """Average over the draws that have a value: (G, B) -> (G,)."""
    known = ~np.isnan(curve)
    return np.where(known, curve, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _drawn_f1(p: np.ndarray, y: np.ndarray, resamples: Resamples) -> np.ndarray:
    """F1 of one class at each threshold in each draw: p (n,), y (n,) bool -> (G, B), NaN where no draw has the class.

    Rows are counted by the number of thresholds that they pass: their sums from above are those that pass each.
    """
    counts = resamples.counts[:, :N_DRAWS]
    passed, size = GRID.searchsorted(p, side="right"), len(GRID) + 1

    def drawn(at: np.ndarray) -> np.ndarray:
        ones = np.ones(len(at), dtype=np.float32)
        tally = csr_array((ones, (passed[at], resamples.unit[at])), shape=(size, len(counts)))
        return np.flip(np.flip(np.asarray(tally @ counts, dtype=np.float64), axis=0).cumsum(axis=0), axis=0)

    guesses, hits = drawn(np.arange(len(y))), drawn(np.flatnonzero(y))
    support = hits[0]
    return np.where(support > 0, 2 * hits[1:] / np.maximum(guesses[1:] + support, 1), np.nan)
