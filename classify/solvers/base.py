"""What every solver does: search the settings of a head on a candidate, score rows that it was not fitted on, fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from classify.folds import Folds
from classify.parity import spread
from classify.probe.linear import Linear
from classify.probe.moments import Scalers, scalers
from classify.probe.rows import Rows, array_rows
from classify.probe.transforms import Whitener, transform_named, whitened_dims
from classify.scoring import Arrays
from classify.trials import Candidate, Task, Trial
from extract.progress import Progress


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head fitted on all rows of a task: its kind and arrays, as bundles keep them.

    `expected` (m, C) are the solver's own scores of the rows `at` (m,), which the bundle has to give too. `estimator`
    is the fitted classifier of a head that has no formula.
    """

    kind: str
    arrays: Arrays
    converged: bool
    at: np.ndarray
    expected: np.ndarray
    estimator: Any = None


class Solver(Protocol):
    """Searches, scores and fits one kind of head."""

    @property
    def head(self) -> str:
        """Name of the head."""
        ...

    @property
    def transforms(self) -> tuple[str, ...]:
        """The transforms that it takes rows in."""
        ...

    def refine(self, task: Task, candidate: Candidate, progress: Progress) -> list[Trial]:
        """Try the settings of the head on one candidate, on the task's folds."""
        ...

    def scores(self, task: Task, candidate: Candidate, params: dict[str, Any], splits: Folds) -> list[np.ndarray]:
        """Fit on the first rows of each split and score the second: -> one (len(test), C) float64 for each."""
        ...

    def fit(self, task: Task, candidate: Candidate, params: dict[str, Any]) -> Fitted:
        """Fit on all rows."""
        ...


@dataclass(frozen=True, eq=False)
class Shared:
    """Splits whose fits share each pass over their rows: `numbers` of the splits, and scalers.

    `masks` (M, n) bool tell who is trained on, `outside` (M, n) bool who is tested.
    """

    rows: Rows
    scalers: Scalers
    masks: np.ndarray
    outside: np.ndarray
    numbers: list[int]


def shared(task: Task, candidate: Candidate, splits: Folds, apart: bool = False) -> Iterator[Shared]:
    """Put together what can be fitted at once: all splits, or one by one where a transform is fitted anew in each."""
    rows = task.read(candidate.layers, candidate.transform)
    masks, outside = np.zeros((2, len(splits), len(task)), dtype=bool)
    for number, (train, test) in enumerate(splits):
        masks[number, train] = outside[number, test] = True
    whitened = transform_named(candidate.transform).whitened
    if not whitened and not apart:
        yield Shared(rows, scalers(rows, masks, candidate.transform), masks, outside, list(range(len(splits))))
        return
    for number, (train, _) in enumerate(splits):
        own, mask = (_whitened(rows, train) if whitened else rows), masks[[number]]
        fitted = scalers(own, mask, "none" if whitened else candidate.transform)
        yield Shared(own, fitted, mask, outside[[number]], [number])


def _whitened(rows: Rows, train: np.ndarray) -> Rows:
    """Whiten all rows by the principal components of some: (n, k). Only few rows are ever whitened."""
    whitener = Whitener(n_components=whitened_dims(len(train), rows.shape[1])).fit(rows.take(train))
    return array_rows(whitener.transform(rows.take(np.arange(rows.shape[0]))))


def unfolded(linear: Linear, rows: Rows) -> Linear:
    """Write a head on whitened rows as one on the rows themselves."""
    whitener = Whitener(n_components=whitened_dims(*rows.shape)).fit(rows.take(np.arange(rows.shape[0])))
    coef = (linear.coef / linear.scale) @ whitener.components_
    intercept = linear.intercept - (linear.coef / linear.scale) @ linear.mean
    return Linear(np.asarray(whitener.mean_), np.ones(rows.shape[1]), coef, intercept)


def fitted_linear(linear: Linear, rows: Rows, converged: bool, scale: float = 1.0) -> Fitted:
    """Keep a linear head as bundles do, its scores multiplied by `scale`."""
    at = spread(rows.shape[0])
    arrays = linear.arrays()
    arrays |= {name: arrays[name] * scale for name in ("coef", "intercept")}
    return Fitted("linear", arrays, converged, at, linear.scores(rows.take(at).astype(np.float64)) * scale)


def out_of_fold(task: Task, candidate: Candidate, params: dict[str, Any], solver: Solver) -> np.ndarray:
    """Score every row by a head that was fitted without its fold: -> (n, C)."""
    scores = np.empty((len(task), task.n_classes))
    for (_, test), found in zip(task.folds, solver.scores(task, candidate, params, task.folds), strict=True):
        scores[test] = found
    return scores
