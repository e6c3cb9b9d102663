"""Who is trained on and who is tested: hold-outs and folds, classes in proportion and groups whole."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from extract.errors import FitError

BUNDLES = 8
"""Of the single rows of a class, for each fold: as even as one by one, where there is more than one row in a bundle."""

Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Part:
    """Some rows: `rows` (n,) into the feature set, `y` (n,) codes, and what may not be parted, (n,) codes or None.

    `groups` are groups by name and duplicates, in chains; `twins` are the duplicates alone.
    """

    rows: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    twins: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)


def hold_out_rows(names: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Pick `share` of each class at random, never its last two: (n,) -> (n,) bool."""
    rng, test = np.random.default_rng(seed), np.zeros(len(names), dtype=bool)
    for name in sorted(set(names)):
        rows = rng.permutation(np.flatnonzero(names == name))
        test[rows[: min(round(share * len(rows)), max(0, len(rows) - 2))]] = True
    return test


def hold_out_groups(names: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Pick whole groups, about `share` of the rows, so that as few classes as possible leave the rest: -> (n,) bool."""
    n_parts = min(max(2, round(1 / share)), len(set(groups)))
    y = np.unique(names, return_inverse=True)[1]
    parts = [test for _, test in _stratified(y, groups, n_parts, seed)] if n_parts > 1 else []
    chosen = max(parts, key=lambda test: len(set(np.delete(names, test))), default=np.array([], dtype=np.int64))
    return np.isin(np.arange(len(names)), chosen)


def make_folds(part: Part, n_folds: int, seed: int) -> tuple[Folds, list[str]]:
    """Split the training part for cross-validation, classes in proportion, groups whole: -> folds, warnings."""
    k, said = _fold_count(part, n_folds), []
    if k < n_folds:
        what = "images" if part.groups is None else "groups or unequal images"
        said.append(f"{k} folds instead of {n_folds}: the smallest class has no more {what}")
    folds = _stratified(part.y, part.groups, k, seed)
    absent = {code for train, _ in folds for code in set(part.y) - set(part.y[train])}
    if absent:
        said.append(f"{len(absent)} classes have too few groups: a fold tests them that was not trained on them")
    return folds, said


def fold_of(folds: Folds, n: int) -> np.ndarray:
    """Say which fold tests each of n rows: (n,) int64, counted from 1; 0 for rows that none tests."""
    found = np.zeros(n, np.int64)
    for number, (_, test) in enumerate(folds, start=1):
        found[test] = number
    return found


def _fold_count(part: Part, asked: int) -> int:
    """Lower the number of folds to what the smallest class can fill; a class of one group cannot be helped by it."""
    if part.groups is None:
        return max(2, min(asked, int(np.bincount(part.y).min())))
    if len(set(part.groups)) < 2:
        raise FitError(
            "all training images are of one group, or equal", remedy="Groups stay whole: give more, or --group none"
        )
    per_class = [len(set(part.groups[part.y == code])) for code in set(part.y)]
    return max(2, min(asked, *(n for n in per_class if n >= 2), len(set(part.groups))))


def _stratified(y: np.ndarray, groups: np.ndarray | None, k: int, seed: int) -> Folds:
    with warnings.catch_warnings():
        # A class smaller than the number of folds: `make_folds` says so in our words, and a hold-out needs only one.
        warnings.filterwarnings("ignore", message="The least populated class")
        splitter: Any = StratifiedKFold if groups is None else StratifiedGroupKFold
        bundles = None if groups is None else bundled(y, groups, BUNDLES * k, seed)
        found = list(splitter(k, shuffle=True, random_state=seed).split(np.zeros(len(y)), y, bundles))
    return [(train, test) for train, test in found if len(train) and len(test)]


def bundled(y: np.ndarray, groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Tie rows that are groups of their own to `most` groups a class, at random: (n,), (n,) -> (n,) codes.

    StratifiedGroupKFold weighs every group against every fold: 50,000 rows of 100 classes took 12 s, and take 1 s.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes)
    alone = np.random.default_rng(seed).permutation(np.flatnonzero(sizes[codes] == 1))
    alone = alone[np.argsort(y[alone], kind="stable")]
    labels, starts, counts = np.unique(y[alone], return_index=True, return_counts=True)
    place = np.arange(len(alone)) - np.repeat(starts, counts)
    codes[alone] = len(sizes) + np.repeat(np.arange(len(labels)), counts) * most + place % most
    return codes
