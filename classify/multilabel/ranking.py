"""Average precision of one class, in one sort for a thousand bootstrap draws."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

MAX_CELLS = 1 << 22
"""(step, draw) pairs held at a time: 16 MiB an array."""


@dataclass(frozen=True)
class Steps:
    """A ranking cut where the recall rises: `rows`, `hits` (size, units) count what each step adds, and its positives.

    A step ends with the last of some equal scores with a positive among them; what comes after the last is left out,
    for the precision matters only where the recall rises.
    """

    size: int
    rows: csr_array
    hits: csr_array


def steps_of(y: np.ndarray, scores: np.ndarray, unit: np.ndarray, n_units: int) -> Steps:
    """Rank the rows of one class by score: y (n,) bool, scores (n,), unit (n,) codes."""
    order = np.argsort(-scores, kind="stable")
    ranked, y = scores[order], y[order]
    tie = np.concatenate([[0], np.cumsum(ranked[1:] != ranked[:-1])])
    rises = np.bincount(tie, weights=y) > 0
    step = (np.cumsum(rises) - rises)[tie]
    size, inside = int(rises.sum()), step < rises.sum()

    def tally(at: np.ndarray) -> csr_array:
        starts = np.concatenate([[0], np.bincount(step[at], minlength=size).cumsum()])
        return csr_array((np.ones(starts[-1], np.float32), unit[order[at]], starts), shape=(size, n_units))

    return Steps(size, tally(inside), tally(y))


def _area(hits: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Mean precision over the rises of the recall: cumulated hits (s, B), precision (s, B) -> (B,); as sklearn."""
    gained = np.diff(hits, axis=0, prepend=0)
    return (gained * precision).sum(axis=0, dtype=np.float64) / hits[-1]


def _eleven_points(hits: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Mean over the recalls 0, 0.1 .. 1 of the best precision at that recall or a higher one: VOC 2007's AP.

    Everingham et al. 2010, section 4.2; recalls are compared as whole numbers, which are exact.
    """
    reached = [np.where(10 * hits >= tenths * hits[-1], precision, 0).max(axis=0) for tenths in range(11)]
    return np.stack(reached).mean(axis=0, dtype=np.float64)


FORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"area": _area, "voc07": _eleven_points}


def drawn_ap(steps: Steps, counts: np.ndarray, form: str = "area") -> np.ndarray:
    """Average precision in each draw: counts (units, B) -> (B,) float64, NaN where a draw has no positive."""
    n_draws, size = counts.shape[1], max(1, MAX_CELLS // max(1, steps.size))
    found = np.full(n_draws, np.nan)
    for at in range(0, n_draws if steps.size else 0, size):
        drawn = np.ascontiguousarray(counts[:, at : at + size])
        seen, hits = ((part @ drawn).cumsum(axis=0) for part in (steps.rows, steps.hits))
        any_hit = hits[-1] > 0
        precision = hits[:, any_hit] / np.maximum(seen[:, any_hit], 1)
        found[at : at + size][any_hit] = FORMS[form](hits[:, any_hit], precision)
    return found


def drawn_aps(
    Y: np.ndarray, scores: np.ndarray, unit: np.ndarray, counts: np.ndarray, form: str = "area"
) -> np.ndarray:
    """Average precision of each class in each draw: Y and scores (n, k), unit (n,), counts (units, B) -> (k, B)."""
    ranked = (steps_of(Y[:, code], scores[:, code], unit, len(counts)) for code in range(Y.shape[1]))
    return np.stack([drawn_ap(steps, counts, form) for steps in ranked])


def average_precisions(Y: np.ndarray, scores: np.ndarray, form: str = "area") -> np.ndarray:
    """Average precision of each class: Y bool and scores (n, k) -> (k,), NaN where no row has the class."""
    return np.array([_ap(y, column, form) if y.any() else np.nan for y, column in zip(Y.T, scores.T, strict=True)])


def _ap(y: np.ndarray, scores: np.ndarray, form: str) -> float:
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(y) - 1)
    hits = np.cumsum(y[order])[last, None]
    return float(FORMS[form](hits, hits / (last[:, None] + 1))[0])


def mean_ap(aps: np.ndarray) -> np.ndarray:
    """Mean over the classes that occur: (k, ...) -> (...), NaN where none does."""
    occurs = ~np.isnan(aps)
    n = occurs.sum(axis=0)
    return np.where(n > 0, np.where(occurs, aps, 0).sum(axis=0) / np.maximum(n, 1), np.nan)
