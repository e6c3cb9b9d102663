"""Any other head: scikit-learn pipelines, every (setting, fold) a fit of its own, the transform inside."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from classify.estimators import store_model
from classify.folds import Folds
from classify.heads import Head, pad
from classify.scoring import prepared_width
from classify.solvers.base import Fitted, spread
from classify.solvers.fits import fit_noted, quiet_fits, run_jobs
from classify.trials import Candidate, Task, Trial
from extract.errors import FitError
from extract.progress import Progress

BEFORE = "none"
"""The rows that a pipeline is given: its transform is inside of it."""

FEW, FEW_CLASSES = 10, 3
"""Rows of a class, and classes, that show what a fitted head is made of."""


@dataclass(frozen=True)
class FoldFit:
    """What one fit on one split gave: scores (len(test), C)."""

    scores: np.ndarray
    converged: bool
    seconds: float


@dataclass(frozen=True)
class Pipelines:
    """Every head that is an ordinary sklearn estimator."""

    kind: Head

    @property
    def head(self) -> str:
        """Name of the head."""
        return self.kind.name

    @property
    def transforms(self) -> tuple[str, ...]:
        """The transforms that it takes rows in."""
        return self.kind.transforms

    def refine(self, task: Task, candidate: Candidate, progress: Progress) -> list[Trial]:
        """Try the grid of the head, and beyond its edge for as long as that pays."""
        X = _read(task, candidate)
        values = self.kind.values(min(len(train) for train, _ in task.folds))
        trials: list[Trial] = []
        with quiet_fits():
            while values:
                trials += self._try(task, candidate, X, values, progress)
                values = self._beyond(task, trials)
        best = _best(task, trials)
        tried = [self._value_of(trial.params) for trial in trials]
        limit = _leads(task, best, trials) and self.kind.at_limit(tried, self._value_of(best.params))
        return [replace(trial, at_limit=limit and trial is best) for trial in trials]

    def scores(self, task: Task, candidate: Candidate, params: dict[str, Any], splits: Folds) -> list[np.ndarray]:
        """Fit on the first rows of each split and score the second: -> one (len(test), C) float64 for each."""
        X, value = _read(task, candidate), self._value_of(params)
        with quiet_fits():
            return [fit.scores for fit in self._fits(task, candidate, X, [(value, *split) for split in splits])]

    def fit(self, task: Task, candidate: Candidate, params: dict[str, Any]) -> Fitted:
        """Fit on all rows."""
        X, at = _read(task, candidate), spread(len(task))
        with quiet_fits():
            pipeline, fine = fit_noted(self._build(task, candidate, self._value_of(params), len(task)), X, task.y)
            expected = self.kind.scores(pipeline, X[at])
        estimator = self.kind.estimator(pipeline) if self.kind.kind == "imported" else None
        return Fitted(self.kind.kind, self.kind.arrays(pipeline), fine, at, expected, estimator)

    def _build(self, task: Task, candidate: Candidate, value: Any, n_rows: int) -> Any:
        if self.kind.kind == "knn":
            value = min(value, n_rows)  # a learning curve fits on fewer rows than the search
        return self.kind.build(value, task.seed, transform=candidate.transform, class_weight=task.class_weight)

    def _value_of(self, params: dict[str, Any]) -> Any:
        if self.kind.kind == "imported":
            return dict(params)
        return params.get(self.kind.parameter)

    def _beyond(self, task: Task, trials: Sequence[Trial]) -> list[Any]:
        best = _best(task, trials)
        if not _leads(task, best, trials):
            return []
        return self.kind.extend([self._value_of(trial.params) for trial in trials], self._value_of(best.params))

    def _try(
        self, task: Task, candidate: Candidate, X: np.ndarray, values: list[Any], progress: Progress
    ) -> list[Trial]:
        """Fit every (value, fold) on one candidate: X (n, D) -> a trial for each value."""
        progress.start(f"fit {candidate.name}", len(values) * len(task.folds))
        jobs = [(value, *fold) for value in values for fold in task.folds]
        fits, k = self._fits(task, candidate, X, jobs, progress), len(task.folds)
        return [self._trial(task, candidate, value, fits[at * k : at * k + k]) for at, value in enumerate(values)]

    def _fits(
        self, task: Task, candidate: Candidate, X: np.ndarray, jobs: list[tuple], progress: Progress | None = None
    ) -> list[FoldFit]:
        fits = []
        for fit in run_jobs(self._fit_split, (task.bare(), candidate, X), jobs, task.jobs, ray=task.ray):
            fits.append(fit)
            if progress:
                progress.advance(1)
        return fits

    def _fit_split(
        self, task: Task, candidate: Candidate, X: np.ndarray, value: Any, train: np.ndarray, test: np.ndarray
    ) -> FoldFit:
        """Fit on the training rows alone and score the others."""
        started, codes = time.perf_counter(), np.unique(task.y[train])
        if len(codes) == 1:
            scores, fine = pad(np.zeros((len(test), 1)), codes, task.n_classes), True
        else:
            unfitted = self._build(task, candidate, value, len(train))
            try:
                pipeline, fine = fit_noted(unfitted, X[train], task.y[train])
                known = self.kind.scores(pipeline, X[test])
            except ValueError as error:
                said = f"{self.head} cannot be fitted on {len(train)} images of {len(codes)} classes: {error}"
                raise FitError(said, remedy="Take another head, or other --param values") from error
            scores = pad(known, codes, task.n_classes)
        return FoldFit(scores, fine, time.perf_counter() - started)

    def _trial(self, task: Task, candidate: Candidate, value: Any, fits: list[FoldFit]) -> Trial:
        predicted = np.empty(len(task), dtype=np.int32)
        for (_, test), fit in zip(task.folds, fits, strict=True):
            predicted[test] = fit.scores.argmax(axis=1)
        return Trial(
            candidate,
            self.head,
            self.kind.params(value),
            predicted,
            task.judge(predicted),
            sum(fit.seconds for fit in fits),
            how=f"{len(task.folds)} folds",
            converged=all(fit.converged for fit in fits),
            strength=self.kind.strength(value),
        )


def few_rows(y: np.ndarray) -> np.ndarray:
    """Choose a few rows of each of the first classes: y (n,) codes -> positions."""
    return np.concatenate([np.flatnonzero(y == code)[:FEW] for code in np.unique(y)[:FEW_CLASSES]])


def check_kept(kind: Head, X: np.ndarray, y: np.ndarray, class_weight: str | None) -> None:
    """Fit a head by import path on a few rows, X (n, D), y (n,), and store it; FitError where no bundle can hold it.

    Told before a search of hours, not after it.
    """
    for value in kind.grid:
        pipeline = kind.build(value, 0, transform=kind.transforms[0], class_weight=class_weight)
        try:
            with quiet_fits():
                pipeline.fit(X.astype(np.float64), y)
        except ValueError:
            continue  # some settings need more rows than these; what fails on all of them the search will tell
        store_model(kind.estimator(pipeline), prepared_width(kind.arrays(pipeline)))


def _read(task: Task, candidate: Candidate) -> np.ndarray:
    """Read the rows of a candidate into memory: (n, D) float64."""
    rows = task.read(candidate.layers, BEFORE)
    return rows.take(np.arange(rows.shape[0])).astype(np.float64)


def _metric(task: Task, trial: Trial) -> float:
    return trial.metrics[task.metric]["value"]


def _best(task: Task, trials: Sequence[Trial]) -> Trial:
    """Return the best, of equals the more regularised."""
    return max(trials, key=lambda trial: (_metric(task, trial), trial.strength))


def _leads(task: Task, best: Trial, trials: Sequence[Trial]) -> bool:
    """Say whether no other value does as well: along a plateau there is nothing to follow beyond the grid."""
    return sum(_metric(task, trial) == _metric(task, best) for trial in trials) == 1
