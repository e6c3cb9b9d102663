"""Which tap, transform and C: scanned by ridge regression, refined by logistic regression, chosen by mean AP."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from classify.multilabel.choose import cheapest_of_the_best
from classify.multilabel.trial import Task, Trial
from classify.probe.grid import C_of, search_C
from classify.probe.linear import Linear
from classify.probe.moments import Scalers, scalers
from classify.probe.objective import Asked
from classify.probe.ridge import SMALL_GROUP, RidgePath, fold_path, loo_path
from classify.probe.rows import Rows, in_memory
from classify.probe.softmax import Ends, fit_softmax
from classify.probe.solutions import Solutions, predict_masked
from extract.progress import Progress

N_REFINED = 3
"""Candidates that go on from the scan."""
SEARCH_TOL, FINAL_TOL = 1e-4, 1e-6
"""Of the gradient: at the first, scores out of fold are right to a hundredth."""
STRIDES = (8, 4, 2, 1)
"""Along the path of penalties: the first all along it, the others to either side of the best."""


@dataclass(frozen=True)
class Found:
    """The configuration that was chosen, all that were tried, and what to say of the search."""

    best: Trial
    trials: list[Trial]
    notes: list[str] = field(default_factory=list)


def search(task: Task, layers: Sequence[str], transforms: Sequence[str], progress: Progress) -> Found:
    """Scan every tap, and all of them side by side, in every transform; refine the best few; choose.

    Of those refined, the cheapest within one standard error of the best; cheap is narrow, then regularised.
    """
    sets = [(layer,) for layer in layers] + ([tuple(layers)] if len(layers) > 1 else [])
    pairs = [(each, transform) for each in sets for transform in transforms]
    progress.start("scan", len(pairs))
    scanned, refined, notes = [], [], []
    for pair in pairs:
        scanned.append(scan(task, *pair))
        progress.advance(1)
    chosen = sorted(scanned, key=lambda trial: (-trial.value, trial.dims))[:N_REFINED]
    progress.start("refine", len(chosen))
    for trial in chosen:
        tried, said = refine(task, trial.layers, trial.transform)
        refined, notes = refined + tried, notes + said
        progress.advance(1)
    return Found(_choose(refined), scanned + refined, notes)


def _choose(trials: list[Trial]) -> Trial:
    order = sorted(range(len(trials)), key=lambda at: (trials[at].dims, trials[at].params["C"]))
    values, drawn = np.array([trial.value for trial in trials]), np.stack([trial.drawn for trial in trials])
    return trials[cheapest_of_the_best(values, drawn, order)]


def scan(task: Task, layers: tuple[str, ...], transform: str) -> Trial:
    """Fit ridge regression to targets of +-1 for a path of penalties, each row scored by a fit without it: -> the best.

    Without its group where groups are small and in memory, else without its fold.
    """
    started = time.perf_counter()
    rows, targets = task.rows(layers, transform), np.where(task.part.Y, np.int8(1), np.int8(-1))
    path, unit = _path(task, rows, targets, transform)
    value, alpha, scores = _best_penalty(task, path, _mean_of_others(targets, unit))
    drawn, seconds = task.drawn(scores, task.counts), time.perf_counter() - started
    return Trial(layers, transform, rows.shape[1], "ridge", {"alpha": alpha}, scores, value, drawn, seconds)


def _path(task: Task, rows: Rows, targets: np.ndarray, transform: str) -> tuple[RidgePath, np.ndarray]:
    """Choose what is left out at a time: -> the path, and of each row the number of what is left out with it (n,)."""
    groups = np.arange(rows.shape[0]) if task.part.groups is None else task.part.groups
    if in_memory(rows) and np.unique(groups, return_counts=True)[1].max() <= SMALL_GROUP:
        return loo_path(rows, targets, transform, groups=task.part.groups, device=task.device), groups
    fold_of = np.zeros(rows.shape[0], dtype=np.int64)
    for number, (_, test) in enumerate(task.folds):
        fold_of[test] = number
    return fold_path(rows, targets, task.folds, None, transform, task.device), fold_of


def _best_penalty(task: Task, path: RidgePath, shift: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Close in on the penalty of the highest mean AP, of equals the largest: -> mean AP, penalty, scores (n, k).

    A third of the path is scored: mean AP has one peak along it, up to noise.
    """
    values: dict[int, float] = {}
    best, kept = 0, np.empty(0)
    for stride in STRIDES:
        near = (best - stride, best + stride) if values else range(0, len(path.lams), stride)
        for number in (each for each in near if 0 <= each < len(path.lams)):
            scores = (path.scores(number) - shift).astype(np.float32)
            values[number] = task.value(scores)
            if number == max(values, key=lambda each: (values[each], each)):
                best, kept = number, scores
    return values[best], float(path.lams[best]), kept


def _mean_of_others(targets: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return the mean target of the rows outside the unit of each row: (n, k) +-1, unit (n,) codes -> (n, k).

    It is the intercept of the fit that scores the row, and lower for a positive than for a negative: left in, it would
    rank the one below the other for no reason in the features.
    """
    number = np.unique(unit, return_inverse=True)[1]
    own = np.zeros((int(number.max()) + 1, targets.shape[1]))
    np.add.at(own, number, targets)
    others = len(targets) - np.bincount(number)
    return ((targets.sum(axis=0, dtype=np.float64) - own) / others[:, None])[number]


def refine(task: Task, layers: tuple[str, ...], transform: str) -> tuple[list[Trial], list[str]]:
    """Fit each class against the rest on every fold, on a grid of C that closes in on the best: -> trials, notes."""
    candidate = _Candidate.of(task, layers, transform)
    trials: dict[int, Trial] = {}

    def evaluate(indices: list[int]) -> list[float]:
        trials.update(zip(indices, candidate.try_all([C_of(index) for index in indices]), strict=True))
        return [trials[index].value for index in indices]

    found = search_C(evaluate)
    trials[found.index] = replace(trials[found.index], at_limit=found.at_limit)
    return list(trials.values()), [f"{' + '.join(layers)}, {transform}: {note}" for note in found.notes]


def refit(task: Task, trial: Trial) -> tuple[Linear, bool]:
    """Fit a configuration on all rows: -> the head, and whether the solver converged."""
    rows, everyone = task.rows(trial.layers, trial.transform), np.ones((1, len(task.part)), dtype=bool)
    found = _fit(rows, everyone, scalers(rows, everyone, trial.transform), [(0, trial.params["C"])], task)
    return found.linear(0), bool(found.converged[0])


def _fit(rows: Rows, masks: np.ndarray, fitted: Scalers, problems: list[tuple[int, float]], task: Task) -> Solutions:
    """Fit (mask, C) problems; one on all rows is the head to keep, and solved more tightly."""
    Y, tol = task.part.Y.astype(np.float32), FINAL_TOL if len(problems) == 1 else SEARCH_TOL
    asked = Asked(rows, Y, masks, fitted, Y.shape[1], "sigmoid")
    return fit_softmax(asked, problems, Ends(tol), device=task.device)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """Taps and a transform, with the rows and what is fitted of the transform on the training rows of each fold."""

    task: Task
    layers: tuple[str, ...]
    transform: str
    rows: Rows
    masks: np.ndarray
    fitted: Scalers

    @classmethod
    def of(cls, task: Task, layers: tuple[str, ...], transform: str) -> "_Candidate":
        rows, masks = task.rows(layers, transform), task.masks()
        return cls(task, layers, transform, rows, masks, scalers(rows, masks, transform))

    def try_all(self, values: list[float]) -> list[Trial]:
        """Fit every C on every fold at once: -> a trial for each C."""
        started, folds = time.perf_counter(), range(len(self.masks))
        problems = [(fold, C) for C in values for fold in folds]
        found = _fit(self.rows, self.masks, self.fitted, problems, self.task)
        scores = self._out_of_fold(found, len(values))
        seconds = (time.perf_counter() - started) / len(values)
        fine = found.converged.reshape(len(values), -1)
        return [self._trial(C, scores[at], bool(fine[at].all()), seconds) for at, C in enumerate(values)]

    def _out_of_fold(self, found: Solutions, n_values: int) -> np.ndarray:
        """Score each row by the fit of each C that has not seen it: -> (values, n, k) float32."""
        scores = np.empty((n_values, *self.task.part.Y.shape), dtype=np.float32)
        for problem, at, each in predict_masked(self.rows, found, device=self.task.device):
            scores[problem // len(self.masks), at] = each
        return scores

    def _trial(self, C: float, scores: np.ndarray, fine: bool, seconds: float) -> Trial:
        where = self.layers, self.transform, self.rows.shape[1]
        value, drawn = self.task.value(scores), self.task.drawn(scores, self.task.counts)
        return Trial(*where, "logistic", {"C": C}, scores, value, drawn, seconds, fine)
