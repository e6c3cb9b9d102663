"""Multinomial logistic regression: all (fold, C) problems of a candidate share each pass over its rows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from classify.folds import Folds
from classify.probe.grid import C_of, search_C
from classify.probe.objective import Asked
from classify.probe.path import code_type
from classify.probe.softmax import Ends, fit_softmax
from classify.probe.solutions import Solutions, out_of_fold_codes, predict_masked
from classify.solvers.base import Fitted, Shared, fitted_linear, shared, unfolded
from classify.statistics import drawn, paired_errors
from classify.trials import Candidate, Task, Trial
from extract.progress import Progress

SEARCH_GAP, SCORES_GAP = 1e-8, 1e-10
"""How far above its minimum a mean loss may lie: of what is compared, and of what is calibrated on. Weak penalties have
gradients of 1e-6 long before scores come to rest."""
SEARCH_TOL, FINAL_TOL = 3e-5, 1e-8
"""Of the gradient of the mean loss. Mean scores are then off by 0.0008 at most; at scikit-learn's 1e-4, by 0.0026."""
N_POINTS = 15
"""Values of C that a search tries at most, where it does not leave the grid."""
FALLEN = 2.0
"""Standard errors of the paired difference below the best at which scores have fallen, and no larger C is tried."""


@dataclass(frozen=True)
class Softmax:
    """The head `logistic`."""

    head: str = "logistic"
    transforms: tuple[str, ...] = ("std", "l2", "pow", "pcaw")

    def refine(self, task: Task, candidate: Candidate, progress: Progress) -> list[Trial]:
        """Search C by cross-validation, on a grid that narrows in on the best."""
        batches = _batches(task, candidate, task.folds)
        before: list[Solutions | None] = [None] * len(batches)
        tried: dict[int, Trial] = {}
        progress.start(f"fit {candidate.name}", N_POINTS)

        def evaluate(indices: Sequence[int]) -> list[float]:
            tried.update(zip(indices, _try(task, candidate, batches, indices, before), strict=True))
            progress.advance(len(indices))
            return [tried[index].metrics[task.metric]["value"] for index in indices]

        found = search_C(evaluate, lambda index, best: fallen(task, tried[index], tried[best]))
        return [replace(each, at_limit=found.at_limit and index == found.index) for index, each in tried.items()]

    def scores(self, task: Task, candidate: Candidate, params: dict[str, Any], splits: Folds) -> list[np.ndarray]:
        """Fit on the first rows of each split and score the second: -> one (len(test), C) float64 for each."""
        found, place = (
            [np.empty((len(test), task.n_classes)) for _, test in splits],
            np.empty(len(task), dtype=np.int64),
        )
        for batch in _batches(task, candidate, splits):
            solutions = _solve(task, batch, [params["C"]], Ends(SEARCH_TOL, SCORES_GAP))
            for problem, at, scores in predict_masked(batch.rows, solutions, batch.outside, task.device):
                number = batch.numbers[problem]
                place[splits[number][1]] = np.arange(len(found[number]))
                found[number][place[at]] = scores
        return found

    def fit(self, task: Task, candidate: Candidate, params: dict[str, Any]) -> Fitted:
        """Fit on all rows."""
        everything = np.arange(len(task))
        [batch] = _batches(task, candidate, [(everything, everything)])
        solutions = _solve(task, batch, [params["C"]], Ends(FINAL_TOL))
        linear, rows = solutions.linear(0), task.read(candidate.layers, candidate.transform)
        if candidate.transform == "pcaw":
            linear = unfolded(linear, rows)
        return fitted_linear(linear, rows, bool(solutions.converged[0]))


def fallen(task: Task, trial: Trial, best: Trial) -> bool:
    """Tell whether a trial is worse than the best by over FALLEN standard errors of the paired difference."""
    both = np.stack([trial.predicted, best.predicted])
    error = paired_errors(drawn(both, task.y, task.resamples, task.metric))[0, 1]
    behind = best.metrics[task.metric]["value"] - trial.metrics[task.metric]["value"]
    return bool(behind > FALLEN * error)


def _batches(task: Task, candidate: Candidate, splits: Folds) -> list[Shared]:
    # Weights that even out the classes differ from fold to fold, so that no fit shares them with another.
    return list(shared(task, candidate, splits, apart=task.class_weight is not None))


def _solve(task: Task, batch: Shared, Cs: Sequence[float], ends: Ends, start: Solutions | None = None) -> Solutions:
    """Fit each C on each split of a batch, the splits of one C beside each other."""
    problems = [(mask, C) for C in Cs for mask in range(len(batch.masks))]
    weights = _weights(task, batch)
    asked = Asked(batch.rows, task.y, batch.masks, batch.scalers, task.n_classes, weights=weights)
    return fit_softmax(asked, problems, ends, start=start, device=task.device)


def _weights(task: Task, batch: Shared) -> np.ndarray | None:
    if task.class_weight is None:
        return None
    weights, [mask] = np.zeros(len(task)), batch.masks
    weights[mask] = compute_sample_weight(task.class_weight, task.y[mask])
    return weights


def _try(
    task: Task,
    candidate: Candidate,
    batches: Sequence[Shared],
    indices: Sequence[int],
    before: list[Solutions | None],
) -> list[Trial]:
    """Judge some values of C, given as indices of the grid, each setting out from what was found `before`, by batch."""
    started, Cs = time.perf_counter(), [C_of(index) for index in indices]
    predicted = np.empty((len(Cs), len(task)), dtype=code_type(task.n_classes))
    fine = np.ones(len(Cs), dtype=bool)
    for number, batch in enumerate(batches):
        solutions = _solve(task, batch, Cs, Ends(SEARCH_TOL, SEARCH_GAP), before[number])
        before[number] = solutions.joined(before[number])
        fine &= solutions.converged.reshape(len(Cs), -1).all(axis=1)
        codes = out_of_fold_codes(batch.rows, solutions, batch.outside, task.device)
        tested = batch.outside.any(axis=0)
        for own, C in zip(predicted, Cs, strict=True):
            own[tested] = codes[C][tested]
    seconds = (time.perf_counter() - started) / len(Cs)
    return [
        Trial(
            candidate,
            "logistic",
            {"C": C},
            codes,
            task.judge(codes),
            seconds,
            how=f"{len(task.folds)} folds",
            converged=bool(good),
            strength=-C,
        )
        for C, codes, good in zip(Cs, predicted, fine, strict=True)
    ]
