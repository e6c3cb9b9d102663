"""What keeping groups together changes: a head chosen with each group in one fold, and scattered over all."""

from dataclasses import replace
from typing import Any

from classify.evaluate import draw_resamples
from classify.folds import Part, make_folds
from classify.solvers import Solver
from classify.statistics import Comparison, paired
from classify.trials import Task, Trial
from extract.progress import Silent

SMALL = 0.05
"""A difference that is called little where it is not clear."""


def grouping(task: Task, solver: Solver, best: Trial, part: Part, n_groups: int) -> dict[str, Any] | None:
    """Say what the chosen tap and head would seem worth to who knows of no groups; None where there are none by name.

    The settings are searched anew, as they would be: those that suit new groups are too cautious to show what a head
    can learn of old ones. Twins stay together all the same.
    """
    if not n_groups:
        return None
    loose = replace(part, groups=part.twins)
    folds, _ = make_folds(loose, len(task.folds), task.seed)
    scattered = replace(
        task, folds=folds, groups=part.twins, resamples=draw_resamples(len(part), part.twins, task.seed)
    )
    trials = solver.refine(scattered, best.candidate, Silent())
    blind = max(trials, key=lambda trial: (trial.metrics[task.metric]["value"], trial.strength))
    grouped, ungrouped = best.metrics[task.metric], blind.metrics[task.metric]
    gap = paired(task.y, blind.predicted, best.predicted, task.resamples, task.metric)
    return {
        "n_groups": n_groups,
        "metric": task.metric,
        "grouped": grouped,
        "ungrouped": ungrouped,
        "difference": {"value": gap.mean, "low": gap.low, "high": gap.high},
        "words": _words(n_groups, grouped, ungrouped, gap),
    }


def _words(n_groups: int, grouped: dict[str, float], ungrouped: dict[str, float], gap: Comparison) -> str:
    said = (
        f"{ungrouped['value']:.1%} where a group may be trained and tested on, {grouped['value']:.1%} where it may not"
    )
    return f"{n_groups} groups: {said}. {_verdict(grouped, ungrouped, gap)}"


def _verdict(grouped: dict[str, float], ungrouped: dict[str, float], gap: Comparison) -> str:
    if gap.low > 0 or ungrouped["low"] > grouped["high"]:
        return f"The {gap.mean * 100:.1f} points between are what the head knows of the groups"
    if gap.mean < SMALL:
        return "The intervals overlap: on this data grouping changes little"
    return f"The {gap.mean * 100:.1f} points between may be chance: too few groups to tell"
