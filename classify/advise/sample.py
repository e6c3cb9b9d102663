"""Some of the training images, for questions that do not need all of them."""

from dataclasses import replace

import numpy as np

from classify.evaluate import draw_resamples
from classify.folds import Part, make_folds
from classify.probe.memo import Kept
from classify.spec import FitSpec
from classify.trials import Task

FEWEST = 2
"""Rows of every class: one to fit on, and one to ask about."""


def subset(train: Part, seed: int, most: int = 2000) -> np.ndarray:
    """Choose up to `most` rows, classes in proportion: -> positions (m,) in the part, ascending.

    Every class keeps FEWEST rows if it has them, even where that makes more than `most`. A smaller choice by the same
    seed is part of a larger one. Groups stay whole where it matters, as rows keep their codes; that of a large group
    only some are taken lets more groups speak.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(train))
    order = order[np.argsort(train.y[order], kind="stable")]
    labels, starts, counts = np.unique(train.y[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(starts, counts)
    # Where each row stands in its class, as a share: the first so many of all are the first so many of each.
    due = (place + np.repeat(rng.random(len(labels)), counts)) / np.repeat(counts, counts)
    due[place < FEWEST] = -1.0
    n = max(most, int(np.minimum(counts, FEWEST).sum()))
    return np.sort(order[np.argsort(due, kind="stable")[:n]])


def task_on(part: Part, spec: FitSpec, task: Task) -> Task:
    """Return a task on other rows: folds and draws of their own, and nothing kept of earlier fits."""
    resamples = draw_resamples(len(part), part.groups, spec.seed)
    folds, _ = make_folds(part, spec.cv, spec.seed)
    return replace(task, y=part.y, groups=part.groups, folds=folds, resamples=resamples, kept=Kept())
