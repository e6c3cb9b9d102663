"""A part of the training images that says when to stop and which rate is best: the inner validation part."""

import numpy as np

from extract.errors import FitError

SHARE = 0.15
FEWEST, MOST = 20, 5000
"""Images: fewer say little of a loss, and more take time to look at and say no more."""
LARGEST = 3
"""One in so many at most, where that is fewer than `FEWEST`: what is trained on matters more."""


def inner_split(y: np.ndarray, groups: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Part (n,) codes into those that are trained on and those looked at: sorted positions (m,), (n - m,) int64.

    Classes in proportion, groups whole, each class trained on; a group is never parted, so where groups are large the
    share is as near as they allow. Raises FitError where nothing can be set apart.
    """
    units = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
    asked = min(max(round(SHARE * len(y)), FEWEST), len(y) // LARGEST, MOST)
    looked_at = np.isin(units, _taken(y, units, max(asked, 1), seed))
    if not looked_at.any():
        what = "no image can be set apart to validate on: each is the last of its class, or its group is too large"
        raise FitError(what, remedy="Give more images or groups, or --group none")
    return np.flatnonzero(~looked_at), np.flatnonzero(looked_at)


def _taken(y: np.ndarray, units: np.ndarray, asked: int, seed: int) -> list[int]:
    """Choose units in turn while that brings the number of images nearer to `asked`; never more than half of all.

    None is the last of a class.
    """
    codes, members = np.unique(y, return_inverse=True)[1], Members(units)
    left, missing, taken = np.bincount(codes), asked, []
    for unit in _turns(codes, units, seed):
        rows = members[unit]
        room = missing - asked + len(codes) // 2
        if len(rows) < 2 * missing and len(rows) <= room and _spares(codes[rows], left):
            np.subtract.at(left, codes[rows], 1)
            missing -= len(rows)
            taken.append(unit)
        if missing <= 0:
            break
    return taken or _smallest(codes, members, left)


def _spares(codes: np.ndarray, left: np.ndarray) -> bool:
    """Whether each class has something left without these rows."""
    mine, counts = np.unique(codes, return_counts=True)
    return bool((left[mine] > counts).all())


def _smallest(codes: np.ndarray, members: "Members", left: np.ndarray) -> list[int]:
    """Take one unit where each is too large: the smallest that leaves every class something, and the others as much."""
    for unit in np.argsort(members.sizes, kind="stable"):
        if 2 * members.sizes[unit] <= len(codes) and _spares(codes[members[unit]], left):
            return [int(unit)]
    return []


class Members:
    """The rows of each unit, units (n,) being 0, 1, ..."""

    def __init__(self, units: np.ndarray) -> None:
        self.sizes = np.bincount(units)
        self.rows, self.ends = np.argsort(units, kind="stable"), np.cumsum(self.sizes)

    def __getitem__(self, unit: int) -> np.ndarray:
        return self.rows[self.ends[unit] - self.sizes[unit] : self.ends[unit]]


def _turns(codes: np.ndarray, units: np.ndarray, seed: int) -> np.ndarray:
    """Order units so that each stretch has the classes in about their proportions: (n,), (n,) -> (units,).

    Within its class, that of its first row, a unit's place is random; and the places of each class are spread evenly
    over 0..1, from a random start, so that small classes are not always the last.
    """
    rng = np.random.default_rng(seed)
    kind = codes[np.unique(units, return_index=True)[1]]
    shuffled = rng.permutation(len(kind))
    order = shuffled[np.argsort(kind[shuffled], kind="stable")]
    _, starts, counts = np.unique(kind[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    place = (rank + np.repeat(rng.random(len(counts)), counts)) / np.repeat(counts, counts)
    return order[np.argsort(place, kind="stable")]
