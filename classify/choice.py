"""Which of the trials of a search to take, and what it is worth once other rows than those that judge it choose."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from classify.evaluate import values_of
from classify.statistics import Comparison, bbc, corrected_t, drawn, one_standard_error, paired_errors
from classify.trials import Candidate, Task, Trial

N_REFINED = 3
"""Candidates that the scan lets through at most, beside the taps side by side."""
DOUBT = 2.0
"""Standard errors of the paired difference by which a candidate may lie below the best of the scan."""
PLAIN_ORDER = ("std", "none", "l2", "pow", "pcaw")
"""Transforms from the simplest: of equals the first is chosen."""


def top(task: Task, trials: Sequence[Trial]) -> Trial:
    """Return the best of some trials, of equals the cheapest."""
    return min(trials, key=lambda trial: (-value(task, trial), cost(trial)))


def value(task: Task, trial: Trial) -> float:
    """Return what the metric of the search says of a trial."""
    return trial.metrics[task.metric]["value"]


def cost(trial: Trial) -> tuple[int, int, int, float]:
    """Order trials by what they cost: the deepest tap, then the columns, the transform, and how free the head is."""
    candidate = trial.candidate
    return candidate.depth, candidate.dims, PLAIN_ORDER.index(candidate.transform), -trial.strength


def shortlist(task: Task, scanned: Sequence[Trial]) -> list[Candidate]:
    """Keep the best few candidates of a scan, of equals the cheaper, but none that is clearly worse than the best."""
    ranked = sorted(scanned, key=lambda trial: (-value(task, trial), cost(trial)))[:N_REFINED]
    errors = paired_errors(drawn(np.stack([t.predicted for t in ranked]), task.y, task.resamples, task.metric))[0]
    least = value(task, ranked[0]) - DOUBT * errors
    return [trial.candidate for trial, bound in zip(ranked, least, strict=True) if value(task, trial) >= bound]


def choose(task: Task, refined: Sequence[Trial]) -> tuple[Trial, str]:
    """Choose the cheapest trial that is within one standard error of the best: -> it, and the rule in words."""
    ordered = sorted(refined, key=cost)
    predicted = np.stack([trial.predicted for trial in ordered])
    at = one_standard_error(predicted, task.y, task.resamples, task.metric, range(len(ordered)))
    chosen, best = ordered[at], top(task, refined)
    said = "one standard error: the cheapest configuration that is not clearly worse than the best"
    if chosen is not best:
        said += f" ({value(task, chosen):.4f} beside {value(task, best):.4f}, {best.candidate.name})"
    return chosen, said


@dataclass(frozen=True, eq=False)
class Pool:
    """All that was tried, as rows from cheap to dear: codes (m, n), and the number (m,) of the candidate of each.

    Candidates are numbered by cost, but for the taps side by side, which come last. `scan` (m,) bool tells penalties of
    the scan, `final` (m,) what may be chosen: what was refined, and the scan of a candidate that was not, which stands
    in for it where a draw would have let it through.
    """

    predicted: np.ndarray
    owner: np.ndarray
    scan: np.ndarray
    final: np.ndarray

    @classmethod
    def of(cls, scanned: Sequence[Trial], refined: Sequence[Trial]) -> "Pool":
        """Put together what a search tried."""
        scanned = sorted(scanned, key=cost)
        number = {trial.candidate: at for at, trial in enumerate(scanned)}
        tried = {trial.candidate for trial in refined}
        rows = [
            ((*cost(trial)[:3], -at), codes, number[trial.candidate], True, trial.candidate not in tried)
            for trial in scanned
            for at, codes in enumerate(trial.predicted[None] if trial.tried is None else trial.tried)
        ]
        rows += [(cost(t), t.predicted, number.get(t.candidate, len(number)), False, True) for t in refined]
        _, predicted, *columns = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
        return cls(np.stack(predicted), *map(np.array, columns))

    def choose(self, draws: np.ndarray) -> np.ndarray:
        """Choose in each draw, by what all are worth in it: (m, B) -> rows (B,)."""
        return self.chosen(draws, paired_errors(draws))

    def chosen(self, values: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Choose as the search does: the best few of the scan, of what was refined of them the cheapest of the best.

        values (m, B), standard errors of paired differences (m, m) -> rows (B,).
        """
        allowed = self._let_through(values, errors)[self.owner] & self.final[:, None]
        values = np.where(allowed, values, -np.inf)
        best = values.argmax(axis=0)
        enough = np.take_along_axis(values, best[None], axis=0) - errors[:, best]
        return (allowed & (values >= enough)).argmax(axis=0)

    def _let_through(self, values: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Tell which candidates the scan lets through: (m, B) -> (candidates, B) bool; side by side always is."""
        scanned = [np.flatnonzero(self.scan & (self.owner == at)) for at in np.unique(self.owner[self.scan])]
        rows = np.stack([own[values[own].argmax(axis=0)] for own in scanned])
        worth = np.take_along_axis(values, rows, axis=0)
        order = np.argsort(-worth, axis=0, kind="stable")
        first = np.take_along_axis(rows, order[:1], axis=0)
        near = worth >= worth.max(axis=0) - DOUBT * errors[first, rows]
        return np.concatenate([near & (order.argsort(axis=0) < N_REFINED), np.ones((1, values.shape[1]), dtype=bool)])


def selection(task: Task, best: Trial, scanned: Sequence[Trial], refined: Sequence[Trial], rule: str) -> dict[str, Any]:
    """Say what the winner scored, what remains of it where other rows chose, and how the other candidates compare.

    Bootstrap bias-corrected cross-validation makes the whole choice anew in each draw; what the rows it left out say of
    that is the corrected score. It is no more than the naive one, nor is its lower end: draws of few rows, or of rows
    that are nearly all right, tell too little of the spread.
    """
    pool, naive = Pool.of(scanned, refined), best.metrics[task.metric]
    left = bbc(pool.predicted, task.y, task.resamples, task.metric, pool.choose)
    step = min(0.0, naive["value"] - left["value"])
    corrected = {name: max(0.0, value + step) for name, value in left.items()}
    corrected["low"] = min(corrected["low"], corrected["value"], naive["low"])
    corrected["high"] = max(corrected["high"], corrected["value"])
    return {
        "metric": task.metric,
        "n_configurations": len(pool.predicted),
        "naive": naive,
        "corrected": corrected,
        "rule": rule,
        "beside": beside(task, best, refined),
    }


def beside(task: Task, best: Trial, refined: Sequence[Trial]) -> list[dict[str, Any]]:
    """Compare the chosen trial with the best of each other candidate, fold by fold: the differences, chosen - other."""
    others = dict.fromkeys(trial.candidate for trial in refined if trial.candidate != best.candidate)
    found = [top(task, [trial for trial in refined if trial.candidate == other]) for other in others]
    return [
        {
            "layers": list(other.candidate.layers),
            "transform": other.candidate.transform,
            "params": other.params,
            "value": value(task, other),
            **asdict(by_fold(task, best, other)),
        }
        for other in found
    ]


def by_fold(task: Task, a: Trial, b: Trial) -> Comparison:
    """Compare two trials by the corrected resampled t over the folds: a - b."""
    both = np.stack([a.predicted, b.predicted])
    values = np.array([values_of(task.y[test], both[:, test])[task.metric] for _, test in task.folds])
    n_train, n_test = np.mean([[len(train), len(test)] for train, test in task.folds], axis=0)
    return corrected_t(values[:, 0] - values[:, 1], n_train, n_test)
