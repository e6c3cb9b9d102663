"""A path of ridge penalties: what each predicts for the rows that its fit did not see."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from classify.probe.backend import Backend, open_serial
from classify.probe.moments import mean_std
from classify.probe.rows import Rows
from classify.probe.transforms import scale_of, transform_named, whitened_dims

EXPONENTS = range(-10, 21)
"""Of the powers of two that penalties are tried at."""

SCORE_BYTES = 64 << 20
"""Of scores that are held at a time: only the winning classes are kept."""

Keep = Callable[[Any], Any]
"""What is kept of the scores (m, L', k) of m rows under L' penalties, on their device: they would be too many."""

Scored = tuple[np.ndarray, slice, Any]
"""Positions of rows (m,), which penalties, and what is kept of their scores."""

Score = Callable[[np.ndarray, Keep], Iterable[Scored]]
"""Scores all rows that are left out under some penalties (L,)."""


@dataclass(frozen=True, eq=False)
class RidgePath:
    """What ridge heads of L penalties say of rows that they were not fitted on.

    `lams` (L,) as RidgeClassifier's alpha; `predicted` (L, n) codes of the best class, the first of equals, and -1 for
    rows that nobody tested; `kind` how rows were left out, in words. `scores` computes anew, and holds on to the rows:
    let go of a path that is done with.
    """

    lams: np.ndarray
    predicted: np.ndarray
    kind: str
    seconds: float
    n_classes: int
    again: Score = field(repr=False)

    def scores(self, number: int) -> np.ndarray:
        """Return the scores under one penalty: (n, k) float64, NaN for rows that nobody tested."""
        found = np.full((self.predicted.shape[1], self.n_classes), np.nan)
        for at, _, scores in self.again(self.lams[number : number + 1], lambda scores: scores[:, 0]):
            found[at] = scores
        return found


def code_type(k: int) -> np.dtype:
    """Return the smallest signed type for codes of k classes: predictions are kept of all that is tried."""
    return np.min_scalar_type(-k)


def walk(score: Score, lams: np.ndarray, shape: tuple[int, int], kind: str, started: float) -> RidgePath:
    """Predict all n rows under all penalties; `shape` is that of the targets, (n, k)."""
    n, k = shape
    predicted = np.full((len(lams), n), -1, code_type(k))
    for at, which, codes in score(lams, lambda scores: scores.argmax(axis=2).T):
        predicted[which, at] = codes
    return RidgePath(lams, predicted, kind, time.perf_counter() - started, k, score)


def side_by_side(cores: Backend, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Work on as many items at once as there are cores, and wait with the next: results may be large.

    Each has one thread of BLAS. Two of them take longer for one decomposition than one does: 0.38 s and 0.1 s at
    512 x 512 on two cores that others use, too.
    """
    waiting = iter(items)
    while some := list(islice(waiting, cores.width)):
        yield from cores.map(work, some)


def tiles(n_rows: int, n_lams: int, k: int) -> Iterator[tuple[slice, slice]]:
    """Cut rows and penalties so that the scores of one piece take at most SCORE_BYTES, but at least one of each."""
    step = max(1, min(n_rows, SCORE_BYTES // (8 * k)))
    width = max(1, SCORE_BYTES // (8 * k * step))
    for start in range(0, n_rows, step):
        for first in range(0, n_lams, width):
            yield slice(start, min(start + step, n_rows)), slice(first, min(first + width, n_lams))


def penalties(rows: Rows, transform: str, device: str = "cpu") -> np.ndarray:
    """Return the default penalties: 2^-10 to 2^20 times trace(G) / n, G the Gram matrix of the transformed rows: (L,).

    trace(G) / n is the total variance of the features. Where that is 0, all penalties give the same.
    """
    (n, dims), asked = rows.shape, transform_named(transform)
    if asked.whitened:
        unit = float(whitened_dims(n, dims))
    else:
        with open_serial(device) as backend:
            std = mean_std(rows, np.ones((1, n), bool), backend)[1][0]
        unit = float(np.isfinite(scale_of(std)).sum() if asked.scaled else (std**2).sum())
    return (unit or 1.0) * np.exp2(np.array(EXPONENTS, float))
