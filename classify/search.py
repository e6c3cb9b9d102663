"""Which taps, which transform, how strongly regularised: all scanned cheaply, the best few refined, one chosen."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classify.probe.memo import Kept, digest
from classify.probe.ridge import scan, targets
from classify.probe.transforms import candidates as transforms_for
from classify.solvers import Solver
from classify.statistics import bbc, one_standard_error
from classify.trials import Candidate, Task, Trial
from extract.progress import Progress, Silent

N_REFINED = 3
"""Candidates that the scan lets through, beside the taps side by side."""
PLAIN_ORDER = ("std", "none", "l2", "pow", "pcaw")
"""Transforms from the simplest: of equals the first is chosen."""
TOGETHER = "std"
"""What is done to several taps side by side, each of which has been brought to length 1."""


@dataclass(frozen=True)
class Found:
    """What a search found: the chosen trial, all of them, the best of each tap, and what was chosen by which rule.

    `selection` has the winner's naive score and the one corrected for having been chosen.
    """

    best: Trial
    trials: list[Trial]
    per_layer: list[Trial]
    selection: dict[str, Any]
    notes: list[str]


def search(task: Task, solver: Solver, dims: dict[str, int], progress: Progress | None = None) -> Found:
    """Compare every tap and setting: `dims` of every tap, shallow to deep -> the chosen one, and all that was tried."""
    progress = progress or Silent()
    todo = candidates(task, solver, dims)
    progress.start("scan", len(todo))
    scanned = []
    for candidate in todo:
        scanned.append(scan_one(task, candidate))
        progress.advance(1)
    refined = [
        trial
        for candidate in [*shortlist(task, scanned), *side_by_side(dims, solver)]
        for trial in solver.refine(task, candidate, progress)
    ]
    best, rule = choose(task, refined)
    per_layer = [top(task, [t for t in scanned if t.candidate.layers == (layer,)]) for layer in dims]
    tried = [*scanned, *refined]
    return Found(best, tried, per_layer, selection(task, best, tried, rule), doubts(refined, best))


def candidates(task: Task, solver: Solver, dims: dict[str, int]) -> list[Candidate]:
    """List every tap in every transform that suits its width and the head, shallow to deep."""
    n_train = min(len(train) for train, _ in task.folds)
    return [
        Candidate((layer,), transform, n_dims, depth)
        for depth, (layer, n_dims) in enumerate(dims.items())
        for transform in transforms_for(n_train, n_dims)
        if transform in solver.transforms
    ]


def side_by_side(dims: dict[str, int], solver: Solver) -> list[Candidate]:
    """All taps as one, where there are several and the head can take them."""
    if len(dims) < 2 or TOGETHER not in solver.transforms:
        return []
    return [Candidate(tuple(dims), TOGETHER, sum(dims.values()), len(dims))]


def scan_one(task: Task, candidate: Candidate) -> Trial:
    """Judge a candidate by closed-form ridge at its best penalty: the trial keeps the predictions of that one."""
    started = time.perf_counter()
    kept = task.kept.about(layers=digest(list(candidate.layers)), transform=candidate.transform)
    judged_on = digest(task.y, task.groups, [list(fold) for fold in task.folds])
    path = kept.about(judged_on=judged_on).remember("scan", lambda: _scanned(task, candidate, kept))
    # Of equals the largest penalty.
    at = len(path["lams"]) - 1 - int(task.values(path["predicted"])[::-1].argmax())
    predicted, seconds = path["predicted"][at], time.perf_counter() - started
    return Trial(
        candidate,
        "ridge",
        {"lambda": float(path["lams"][at])},
        predicted,
        task.judge(predicted),
        seconds,
        stage="scan",
        how=path["kind"],
        tried=path["predicted"],
    )


def _scanned(task: Task, candidate: Candidate, kept: Kept) -> dict[str, Any]:
    """Judge all penalties: what of it is kept for a fit to come."""
    rows, Y = task.read(candidate.layers, candidate.transform), targets(task.y, task.n_classes)
    path = scan(rows, Y, task.folds, task.groups, candidate.transform, kept)
    return {"lams": path.lams, "predicted": path.predicted, "kind": path.kind}


def shortlist(task: Task, scanned: Sequence[Trial]) -> list[Candidate]:
    """Keep the best few candidates of a scan, of equals the cheaper."""
    return [trial.candidate for trial in sorted(scanned, key=lambda trial: (-value(task, trial), cost(trial)))][
        :N_REFINED
    ]


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


def selection(task: Task, best: Trial, trials: Sequence[Trial], rule: str) -> dict[str, Any]:
    """Say what the winner scored, and what remains of it when it is judged on rows that did not choose it.

    What choosing adds is the best score of all less what bootstrap bias-corrected cross-validation leaves of it; the
    winner's own score is lowered by that. The scores are not of one level: where one row is left out, more are trained
    on than where a fold is.
    """
    predicted = np.concatenate([trial.predicted[None] if trial.tried is None else trial.tried for trial in trials])
    naive, left = best.metrics[task.metric], bbc(predicted, task.y, task.resamples, task.metric)
    step = min(naive["value"] - float(task.values(predicted).max()), naive["value"] - left["value"])
    return {
        "metric": task.metric,
        "n_configurations": len(predicted),
        "naive": naive,
        "corrected": {name: min(1.0, max(0.0, value + step)) for name, value in left.items()},
        "rule": rule,
    }


def doubts(refined: Sequence[Trial], best: Trial) -> list[str]:
    """Say in words what makes the choice less sure."""
    said = []
    if unfinished := sum(not trial.converged for trial in refined):
        own = ", the chosen one among them" if not best.converged else ""
        said.append(f"{unfinished} of {len(refined)} configurations did not converge{own}")
    if best.at_limit:
        said.append(f"the best {', '.join(best.params)} is the last that is tried: a better one may lie beyond")
    return said
