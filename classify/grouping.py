"""What keeping groups together changes: the same head, judged with its groups in one fold, and scattered over all."""

from dataclasses import replace
from typing import Any

from classify.evaluate import draw_resamples
from classify.folds import Part, make_folds
from classify.solvers import Solver, out_of_fold
from classify.trials import Task, Trial


def grouping(task: Task, solver: Solver, best: Trial, part: Part, n_groups: int) -> dict[str, Any] | None:
    """Judge the chosen head without regard to the groups by name, twins still together; None where there are none."""
    if not n_groups:
        return None
    loose = replace(part, groups=part.twins)
    folds, _ = make_folds(loose, len(task.folds), task.seed)
    scattered = replace(
        task, folds=folds, groups=part.twins, resamples=draw_resamples(len(part), part.twins, task.seed)
    )
    scores = out_of_fold(scattered, best.candidate, best.params, solver)
    ungrouped = scattered.judge(scores.argmax(axis=1))[task.metric]
    grouped = best.metrics[task.metric]
    return {
        "n_groups": n_groups,
        "metric": task.metric,
        "grouped": grouped,
        "ungrouped": ungrouped,
        "words": _words(n_groups, grouped, ungrouped),
    }


def _words(n_groups: int, grouped: dict[str, float], ungrouped: dict[str, float]) -> str:
    gap = ungrouped["value"] - grouped["value"]
    said = (
        f"{ungrouped['value']:.1%} where a group may be trained and tested on, {grouped['value']:.1%} where it may not"
    )
    if ungrouped["low"] > grouped["high"]:
        return f"{n_groups} groups: {said}. The {gap * 100:.1f} points between are what the head knows of the groups"
    return f"{n_groups} groups: {said}. The intervals overlap: on this data grouping changes little"
