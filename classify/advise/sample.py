"""Some of the training images, for questions that do not need all of them."""

import numpy as np

from classify.folds import Part

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
