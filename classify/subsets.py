"""Fewer images to train on: disjoint parts of the training rows, classes in proportion, groups whole."""

import numpy as np

from classify.folds import Folds, Part

LEAVES = (8, 4)
"""Into how many disjoint parts the training rows are dealt: four sizes, or three where a class has too few rows."""


def deal_folds(part: Part, folds: Folds, seed: int) -> list[np.ndarray] | None:
    """Deal each fold's training rows into as many leaves as every class fills: -> leaf numbers (n_train,), or None."""
    for n_leaves in LEAVES:
        rng = np.random.default_rng(seed)
        dealt = [deal(part, train, n_leaves, rng) for train, _ in folds]
        if all(_full(part.y[train], leaf, n_leaves) for (train, _), leaf in zip(folds, dealt, strict=True)):
            return dealt
    return None


def _full(y: np.ndarray, leaf: np.ndarray, n_leaves: int) -> bool:
    """Tell whether every leaf holds every class."""
    return len(np.unique(y * n_leaves + leaf)) == n_leaves * len(np.unique(y))


def deal(part: Part, train: np.ndarray, n_leaves: int, rng: np.random.Generator) -> np.ndarray:
    """Deal rows, or whole groups, into leaves: rows (n,) of the part -> leaf numbers (n,) int64.

    Class by class (a group counts for the class of its first row), the largest groups first, to and fro.
    """
    unit = np.arange(len(train)) if part.groups is None else np.unique(part.groups[train], return_inverse=True)[1]
    first, sizes = np.unique(unit, return_index=True)[1], np.bincount(unit)
    classes = np.unique(part.y[train[first]], return_inverse=True)[1]
    order = np.lexsort((rng.permutation(len(sizes)), -sizes, classes))
    starts = np.cumsum(np.bincount(classes)) - np.bincount(classes)
    lap, seat = np.divmod(np.arange(len(order)) - starts[classes[order]], n_leaves)
    seat = np.where(lap % 2, n_leaves - 1 - seat, seat)
    # Each class starts at another leaf, or the leftovers of all classes would gather in the first.
    turned = rng.permuted(np.tile(np.arange(n_leaves), (len(starts), 1)), axis=1)
    leaf = np.empty(len(order), dtype=np.int64)
    leaf[order] = turned[classes[order], seat]
    return leaf[unit]


def subsets(train: np.ndarray, leaf: np.ndarray) -> list[list[np.ndarray]]:
    """Join leaves to ever larger parts: rows (n,), leaves (n,) -> for each size, largest first, its disjoint parts."""
    n_leaves, sizes, count = int(leaf.max()) + 1, [], 1
    while count <= n_leaves:
        sizes.append([train[leaf * count // n_leaves == at] for at in range(count)])
        count *= 2
    return sizes
