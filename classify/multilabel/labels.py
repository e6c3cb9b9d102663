"""Labels as sets: a cell such as `cat|dog` names several classes, `-` says that none of them is there."""

from collections.abc import Iterable, Sequence

import numpy as np

from classify.labels import SEPARATOR
from extract.errors import FitError, unknown

NONE = "-"
"""The cell of an image that was looked at and has none of the labels; an empty cell says that nobody looked."""
FEWEST = 2
"""Training images with a class, and without it, below which there is nothing to fit it on."""


def parse_cell(cell: str) -> frozenset[str]:
    """Read the labels in one cell: 'cat|dog' -> {cat, dog}, '-' -> none. Raises FitError at names that are empty."""
    names = [name.strip() for name in cell.split(SEPARATOR)]
    if names == [NONE]:
        return frozenset()
    if "" in names or NONE in names:
        said = "an empty name" if "" in names else f"{NONE!r} (none of them) beside a name"
        remedy = f"Write names between {SEPARATOR!r}, or {NONE!r} alone; leave the cell empty where nothing is known"
        raise FitError(f"{said} in the label {cell!r:.80}", remedy=remedy)
    return frozenset(names)


def format_cell(names: Iterable[str]) -> str:
    """Write labels as one cell, sorted: {dog, cat} -> 'cat|dog', none -> '-'."""
    return SEPARATOR.join(sorted(names)) or NONE


def classes_of(cells: Iterable[str]) -> list[str]:
    """Return all labels in some cells, sorted."""
    return sorted(frozenset().union(*(parse_cell(cell) for cell in set(cells))))


def matrix_of(cells: Sequence[str], classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read cells as a matrix: (n,) str -> Y (n, k) bool, and how many labels of each cell are no class (n,) int64."""
    column = {name: at for at, name in enumerate(classes)}
    Y, beyond = np.zeros((len(cells), len(classes)), dtype=bool), np.zeros(len(cells), dtype=np.int64)
    for row, cell in enumerate(cells):
        names = parse_cell(cell)
        known = [column[name] for name in names if name in column]
        Y[row, known] = True
        beyond[row] = len(names) - len(known)
    return Y, beyond


def add_up(rows: Iterable[tuple[str, str]], ids: Sequence[str], where: str) -> list[str]:
    """Join the label rows (id, cell) of each image: -> its cell for each of `ids`, '' where no row names one.

    Raises FitError where a row says none of them and another names some, and at an id that the features do not have.
    """
    found: dict[str, list[str]] = {}
    known = set(ids)
    for id_, cell in rows:
        if id_ not in known:
            unknown("image", id_, ids, FitError, remedy=f"Each path in {where} is an id of the feature set")
        if cell:
            found.setdefault(id_, []).append(cell)
    return [_joined(found.get(id_, []), f"{where}, {id_!r}") for id_ in ids]


def _joined(cells: list[str], where: str) -> str:
    sets = [parse_cell(cell) for cell in cells]
    if any(sets) and not all(sets):
        raise FitError(f"one row says {NONE!r} (none), and another names labels", where=where, remedy="Keep one")
    return format_cell(frozenset().union(*sets)) if sets else ""


def rare(Y: np.ndarray) -> np.ndarray:
    """Tell which classes too few images have, or lack, to be learned: training labels (n, k) -> (k,) bool."""
    positives = Y.sum(axis=0)
    return np.minimum(positives, len(Y) - positives) < FEWEST


def rare_words(classes: Sequence[str], Y: np.ndarray) -> list[str]:
    """Say which classes are left out, and why: training labels (n, k) -> notes."""
    positives = Y.sum(axis=0)
    few = [f"{name!r}" for name, n in zip(classes, positives, strict=True) if n < FEWEST]
    nearly_all = [f"{name!r}" for name, n in zip(classes, positives, strict=True) if n >= FEWEST > len(Y) - n]
    why = [
        (few, f"fewer than {FEWEST} training images have", "not learned"),
        (nearly_all, "all training images but one at most have", "not learned; leave it out of the labels"),
    ]
    return [f"{words} {_some(names)}: {so}" for names, words, so in why if names]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
