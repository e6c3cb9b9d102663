"""Which tap and how strongly regularised: every configuration judged on the same folds by predictions out of fold."""

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy.linalg import LinAlgWarning
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from classify.dataset import Folds
from classify.evaluate import Resamples, evaluate
from classify.heads import Head, converged, pad
from extract.progress import Progress, Silent

HARMLESS = (
    ("self.within_class_std_dev_", ""),  # of features that are 0 everywhere, as ReLUs have them; our scores use none
    ("", r"sklearn\.neighbors\._nearest_centroid"),  # the same deviation, where every class has one row
    ("Only one sample available", ""),  # LDA shrinks such a class all the way, as it should
)
"""Warnings about no number that we use: (message, module) patterns."""
_trouble = threading.local()


@dataclass(frozen=True)
class Trial:
    """One configuration: its `scores` (n, C) out of fold, dropped once it is beaten, and what they are worth."""

    layer: str
    dims: int
    value: Any
    metrics: dict[str, dict[str, float]]
    seconds: float
    converged: bool
    scores: np.ndarray
    at_limit: bool = False


@dataclass(frozen=True)
class Search:
    """How configurations are compared: the head, the metric, the labels y (n,) and the folds that all share."""

    head: Head
    metric: str
    y: np.ndarray
    folds: Folds
    resamples: Resamples
    n_classes: int
    seed: int = 0
    jobs: int = 1

    def run(
        self, layers: Sequence[str], read: Callable[[str], np.ndarray], progress: Progress | None = None
    ) -> tuple[Trial, list[Trial]]:
        """Try every value on every layer, `read(layer)` being X (n, D): -> the best, with its scores, and all."""
        kept: list[Trial] = []
        trials: list[Trial] = []
        with quiet_fits():
            for layer in layers:
                tried = self._layer(layer, np.asarray(read(layer), dtype=np.float64), progress or Silent())
                kept = [self.best([*kept, *tried])]
                trials += [replace(trial, scores=trial.scores[:0]) for trial in tried]
        return kept[0], trials

    def best(self, trials: Sequence[Trial]) -> Trial:
        """Choose by the metric; of equals the smaller, then the more regularised."""
        return max(trials, key=lambda t: (t.metrics[self.metric]["value"], -t.dims, self.head.strength(t.value)))

    def _grid(self) -> list[Any]:
        return self.head.values(min(len(train) for train, _ in self.folds))

    def _layer(self, layer: str, X: np.ndarray, progress: Progress) -> list[Trial]:
        """Try the grid on one layer, and beyond its edge for as long as that pays."""
        trials = self._try(layer, X, self._grid(), progress)
        while more := self._beyond(trials):
            trials += self._try(layer, X, more, progress)
        best = self.best(trials)
        if self._leads(best, trials) and self.head.at_limit([trial.value for trial in trials], best.value):
            trials = [replace(trial, at_limit=trial is best) for trial in trials]
        return trials

    def _beyond(self, trials: "list[Trial]") -> list[Any]:
        best = self.best(trials)
        return self.head.extend([t.value for t in trials], best.value) if self._leads(best, trials) else []

    def _leads(self, best: Trial, trials: "list[Trial]") -> bool:
        """Say whether no other value does as well: along a plateau there is nothing to follow beyond the grid."""
        value = best.metrics[self.metric]["value"]
        return sum(trial.metrics[self.metric]["value"] == value for trial in trials) == 1

    def _try(self, layer: str, X: np.ndarray, values: list[Any], progress: Progress) -> list[Trial]:
        """Fit every (value, fold) on one layer: X (n, D) -> a trial for each value."""
        tasks = [(value, *fold) for value in values for fold in self.folds]
        fits = []
        progress.start(f"fit {layer}", len(tasks))
        for fit in run_jobs([delayed(self.fit_fold)(X, *task) for task in tasks], self.jobs):
            fits.append(fit)
            progress.advance(1)
        k = len(self.folds)
        return [self._trial(layer, X.shape[1], value, fits[at * k : at * k + k]) for at, value in enumerate(values)]

    def fit_fold(self, X: np.ndarray, value: Any, train: np.ndarray, test: np.ndarray) -> "FoldFit":
        """Fit on the training rows alone and score the others: X (n, D) -> scores (len(test), n_classes)."""
        started = time.perf_counter()
        codes = np.unique(self.y[train])
        if len(codes) == 1:
            scores, fine = pad(np.zeros((len(test), 1)), codes, self.n_classes), True
        else:
            pipeline, fine = fit_noted(self.head.build(value, self.seed), X[train], self.y[train])
            scores = pad(self.head.scores(pipeline, X[test]), codes, self.n_classes)
        return FoldFit(scores, fine, time.perf_counter() - started)

    def _trial(self, layer: str, dims: int, value: Any, fits: "list[FoldFit]") -> Trial:
        scores = np.empty((len(self.y), self.n_classes))
        for (_, test), fit in zip(self.folds, fits, strict=True):
            scores[test] = fit.scores
        metrics = evaluate(self.y, scores.argmax(axis=1), self.resamples)
        seconds, fine = sum(fit.seconds for fit in fits), all(fit.converged for fit in fits)
        return Trial(layer, dims, value, metrics, seconds, fine, scores)


@dataclass(frozen=True)
class FoldFit:
    """What one fit on one fold gave."""

    scores: np.ndarray
    converged: bool
    seconds: float


def run_jobs(jobs: list, n_jobs: int) -> Iterator[Any]:
    """Run joblib's delayed calls, in order: here, or on threads, which share X.

    Threads: 20 fits of 1,500 x 512, 10 classes took 1.8 s here, 1.0 s on 2 threads, 2.8 s on 2 fresh processes.
    """
    if n_jobs == 1:
        return (call(*args, **kwargs) for call, args, kwargs in jobs)
    return iter(Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(jobs))


def fit_noted(pipeline: Pipeline, X: np.ndarray, y: np.ndarray) -> tuple[Pipeline, bool]:
    """Fit, and say whether the solver came to its end; call it under `quiet_fits`."""
    _trouble.seen = False
    pipeline.fit(X, y)
    return pipeline, converged(pipeline) and not _trouble.seen


@contextmanager
def quiet_fits() -> Iterator[None]:
    """Keep solvers' warnings off the terminal, noted for `fit_noted`, and BLAS to one thread.

    Two BLAS threads slow these fits up to fivefold (reference/perf.md 4); filters are the process's, so they are set
    once around all threads.
    """
    with threadpool_limits(1), warnings.catch_warnings():
        show = warnings.showwarning

        def note(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
            if issubclass(category, ConvergenceWarning | LinAlgWarning):
                _trouble.seen = True
            else:
                show(message, category, *args, **kwargs)

        for message, module in HARMLESS:
            warnings.filterwarnings("ignore", message=message, module=module)
        for category in (ConvergenceWarning, LinAlgWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = note
        yield
