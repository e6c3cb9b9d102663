"""Splits for several labels an image: every class spread evenly over the parts, groups kept whole."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from classify.folds import Folds
from extract.errors import FitError

ALIKE = 1e-9
"""Wishes closer than this are equal: they are sums and differences of shares."""


def hold_out(Y: np.ndarray, groups: np.ndarray | None, share: float, seed: int) -> np.ndarray:
    """Pick about `share` of the rows, and of each class: Y (n, k) bool, groups (n,) or None -> (n,) bool."""
    return stratified_parts(Y, groups, (1 - share, share), seed) == 1


def make_folds(Y: np.ndarray, groups: np.ndarray | None, n_folds: int, seed: int) -> tuple[Folds, list[str]]:
    """Split training rows for cross-validation: Y (n, k) bool, groups (n,) or None -> folds, warnings.

    Raises FitError where everything is of one group.
    """
    n_units = len(Y) if groups is None else len(np.unique(groups))
    if n_units < 2:
        raise FitError(
            "all training images are of one group, or equal", remedy="Groups stay whole: give more, or --group none"
        )
    k = min(n_folds, n_units)
    part = stratified_parts(Y, groups, [1 / k] * k, seed)
    folds = [(np.flatnonzero(part != at), np.flatnonzero(part == at)) for at in range(k) if (part == at).any()]
    return folds, _fold_words(Y, folds, n_folds)


def _fold_words(Y: np.ndarray, folds: Folds, asked: int) -> list[str]:
    said = []
    if len(folds) < asked:
        said.append(f"{len(folds)} folds instead of {asked}: there are no more images, or groups, to make one of each")
    one_sided = np.zeros(Y.shape[1], dtype=bool)
    for train, _ in folds:
        one_sided |= Y[train].all(axis=0) | ~Y[train].any(axis=0)
    if one_sided.any():
        n = int(one_sided.sum())
        said.append(f"{n} classes have too few images or groups: a fold tests them that was not trained on them")
    return said


def stratified_parts(Y: np.ndarray, groups: np.ndarray | None, shares: Sequence[float], seed: int) -> np.ndarray:
    """Deal rows into parts of about these shares, each class in proportion: Y (n, k) bool -> (n,) int64 part numbers.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): of the class with the fewest rows left, each row
    goes to the part that lacks most of it, then most of all, then at random. Beyond them, a class that most rows have
    is counted by those that lack it, and groups are dealt whole, those with most rows of the class first.
    """
    unit = np.arange(len(Y)) if groups is None else np.unique(groups, return_inverse=True)[1]
    minority = Y ^ (2 * Y.sum(axis=0) > len(Y))
    n_units = int(unit.max()) + 1 if len(unit) else 0
    member = csr_array((np.ones(len(unit), dtype=np.int64), (unit, np.arange(len(unit)))), shape=(n_units, len(unit)))
    counts = member @ minority.astype(np.int64)
    return _Deal(counts, np.bincount(unit, minlength=n_units), shares, seed).run()[unit]


class _Deal:
    """Units being dealt: `counts` (units, k) rows of each class in them, `sizes` (units,) rows in all."""

    def __init__(self, counts: np.ndarray, sizes: np.ndarray, shares: Sequence[float], seed: int) -> None:
        self._counts, self._sizes = counts, sizes
        self._wants = np.outer(counts.sum(axis=0), shares)  # (k, parts)
        self._room = sizes.sum() * np.asarray(shares)
        self._left = counts.sum(axis=0)
        self._part = np.full(len(sizes), -1, dtype=np.int64)
        self._rng = np.random.default_rng(seed)

    def run(self) -> np.ndarray:
        while self._left.any():
            code = int(np.where(self._left > 0, self._left, np.inf).argmin())
            for unit in self._open(self._counts[:, code]):
                self._give(unit, self._wants[code])
        for unit in self._open(self._sizes):
            self._give(unit, self._room)
        return self._part

    def _open(self, weights: np.ndarray) -> np.ndarray:
        """Return the units of any weight that are still to be dealt, the heaviest first, equal ones shuffled."""
        units = self._rng.permutation(np.flatnonzero((self._part < 0) & (weights > 0)))
        return units[np.argsort(-weights[units], kind="stable")]

    def _give(self, unit: int, wants: np.ndarray) -> None:
        part = self._neediest(wants)
        self._part[unit] = part
        self._wants[:, part] -= self._counts[unit]
        self._room[part] -= self._sizes[unit]
        self._left -= self._counts[unit]

    def _neediest(self, wants: np.ndarray) -> int:
        parts = np.flatnonzero(wants >= wants.max() - ALIKE)
        if len(parts) > 1:
            room = self._room[parts]
            parts = parts[room >= room.max() - ALIKE]
        return int(parts[0] if len(parts) == 1 else self._rng.choice(parts))
