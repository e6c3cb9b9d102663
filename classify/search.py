"""Which taps, which transform, how strongly regularised: all scanned cheaply, the best few refined, one chosen."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from classify.choice import choose, selection, shortlist, top
from classify.probe.memo import Kept, digest
from classify.probe.ridge import scan, targets
from classify.probe.transforms import candidates as transforms_for
from classify.solvers import Solver
from classify.trials import Candidate, Task, Trial
from extract.progress import Progress, Silent

TOGETHER = "std"
"""What is done to several taps side by side, each of which has been brought to length 1."""
ALIKE, VARIANCE = "l2", 1e-3
"""The transform in which two taps of the same rows are told, and by what share their variances may differ."""
FEW = 0.01
"""Of the answers that rounding may turn where two taps give the same rows."""


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
    doubles = twice(scanned)
    single = [trial for trial in scanned if trial.candidate.layers[0] not in doubles]
    together = side_by_side({layer: n for layer, n in dims.items() if layer not in doubles}, solver)
    refined = [
        trial
        for candidate in [*shortlist(task, single), *together]
        for trial in solver.refine(task, candidate, progress)
    ]
    best, rule = choose(task, refined)
    scanned = [noted(trial, doubles) for trial in scanned]
    per_layer = [top(task, [t for t in scanned if t.candidate.layers == (layer,)]) for layer in dims]
    chosen = selection(task, best, single, refined, rule)
    return Found(best, [*scanned, *refined], per_layer, chosen, doubts(refined, best))


def twice(scanned: Sequence[Trial]) -> dict[str, str]:
    """Find taps that give the rows of a shallower one, as a last stage does that is pooled like the penultimate.

    Refined too, they would take the place of others, and side by side a tap would count twice. Told by the total
    variance of rows of length 1, in which the penalties are counted, and by what every penalty answers.
    """
    found: dict[str, str] = {}
    alike = [trial for trial in scanned if trial.candidate.transform == ALIKE]
    for at, trial in enumerate(alike):
        first = next((other for other in alike[:at] if _same(trial, other)), None)
        if first is not None:
            found[trial.candidate.layers[0]] = first.candidate.layers[0]
    return found


def _same(a: Trial, b: Trial) -> bool:
    if a.candidate.dims != b.candidate.dims or a.tried is None or b.tried is None:
        return False
    return bool(abs(a.unit / b.unit - 1) < VARIANCE and np.mean(a.tried != b.tried) < FEW)


def noted(trial: Trial, doubles: dict[str, str]) -> Trial:
    """Say of a tap that gives the rows of another one that it does."""
    other = doubles.get(trial.candidate.layers[0])
    return replace(trial, how=f"{trial.how}; the rows of {other}, and not refined") if other else trial


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
        unit=float(path["lams"][0]),
    )


def _scanned(task: Task, candidate: Candidate, kept: Kept) -> dict[str, Any]:
    """Judge all penalties: what of it is kept for a fit to come."""
    rows, Y = task.read(candidate.layers, candidate.transform), targets(task.y, task.n_classes)
    path = scan(rows, Y, task.folds, task.groups, candidate.transform, kept, device=task.device)
    return {"lams": path.lams, "predicted": path.predicted, "kind": path.kind}


def doubts(refined: Sequence[Trial], best: Trial) -> list[str]:
    """Say in words what makes the choice less sure."""
    said = []
    if unfinished := sum(not trial.converged for trial in refined):
        own = ", the chosen one among them" if not best.converged else ""
        said.append(f"{unfinished} of {len(refined)} configurations did not converge{own}")
    if best.at_limit:
        said.append(f"the best {', '.join(best.params)} is the last that is tried: a better one may lie beyond")
    return said
