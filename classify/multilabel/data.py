"""What a fit with several labels an image learns from and is tested on."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from classify.evaluate import group_codes
from classify.labels import read_groups, stored_labels
from classify.multilabel.labels import NONE, classes_of, matrix_of, rare, rare_words
from classify.multilabel.split import hold_out
from extract.errors import FitError
from extract.record import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extract.store.reader import FeatureSet


@dataclass(frozen=True)
class Part:
    """Some rows: `rows` (n,) into the feature set, `Y` (n, k) bool over the classes, `groups` (n,) codes or None.

    `unknown` (n,) counts the labels of each image that are no class.
    """

    rows: np.ndarray
    Y: np.ndarray
    unknown: np.ndarray
    groups: np.ndarray | None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class MultiData:
    """The labelled rows of a feature set, split; `cells` (N,) has the labels of every row as they were given."""

    train: Part
    test: Part
    classes: list[str]
    cells: np.ndarray
    split: str
    n_bad: int
    n_unlabelled: int
    warnings: list[str] = field(default_factory=list)


def read_multilabel(
    features: "FeatureSet",
    *,
    cells: "Sequence[str] | None" = None,
    group: str = "auto",
    near: np.ndarray | None = None,
    share: float = 0.2,
    seed: int = 0,
) -> MultiData:
    """Split the usable rows into a training and a test part, and find the classes that can be learned.

    `cells` (N,) are other labels than those of the features, "" where there is none; `near` (N,) numbers the
    near-duplicates of all images. `share` is held out where no split is given.
    """
    named = stored_labels(features) if cells is None else np.array(cells, dtype=object)
    ok = np.asarray(features.status) == Status.OK
    usable = np.flatnonzero(ok & (named != ""))
    if not len(usable):
        remedy = "Give --labels FILE, or a manifest path,label with labels such as cat|dog"
        raise FitError("no usable image has labels", where=features.name, remedy=remedy)
    known, groups = classes_of(named[usable]), _groups(features, usable, group, near)
    Y, _ = matrix_of(named[usable].tolist(), known)
    test, words = _split(np.asarray(features.splits, dtype=object)[usable], Y, groups, share, seed)
    _check_parts(features.name, Y, test)
    classes = [name for name, lost in zip(known, rare(Y[~test]), strict=True) if not lost]
    train, tested = (_part(usable[at], named, classes, None if groups is None else groups[at]) for at in (~test, test))
    _check_tested(features.name, tested)
    said = rare_words(known, Y[~test]) + _unseen(tested) + _leaks(groups, test)
    return MultiData(train, tested, classes, named, words, int((~ok).sum()), int(ok.sum()) - len(usable), said)


def _groups(features: "FeatureSet", usable: np.ndarray, group: str, near: np.ndarray | None) -> np.ndarray | None:
    """Number what may not be parted: groups by name, equal images, near-duplicates -> (n,) codes, None for nothing."""
    named = read_groups(features, group)
    contents = [features.sha256[row].tobytes() for row in usable]
    return group_codes([named[row] for row in usable], contents, None if near is None else near[usable])


def _part(rows: np.ndarray, named: np.ndarray, classes: list[str], groups: np.ndarray | None) -> Part:
    return Part(rows, *matrix_of(named[rows].tolist(), classes), groups)


def _split(
    splits: np.ndarray, Y: np.ndarray, groups: np.ndarray | None, share: float, seed: int
) -> tuple[np.ndarray, str]:
    """Choose the test rows: the split test, else val beside train, else some held out: -> (n,) bool, why in words."""
    has = set(splits)
    given = "test" if "test" in has else "val" if {"train", "val"} <= has else ""
    test = splits == given if given else hold_out(Y, groups, share, seed)
    rest = f"trained on the other {(~test).sum()}"
    if given:
        both = ", the split 'val' among them" if given == "test" and "val" in has else ""
        return test, f"tested on the {test.sum()} images of the split {given!r}, {rest}{both}"
    how = "each label in proportion" + ("" if groups is None else ", group by group, equal images being one,")
    return test, f"no split is given: {test.sum()} images held out, {how} by seed {seed}, {rest}"


def _check_parts(where: str, Y: np.ndarray, test: np.ndarray) -> None:
    if not Y.shape[1]:
        raise FitError(f"every label is {NONE!r}: there is no class", where=where, remedy="Give labels such as cat|dog")
    if test.all() or not test.any():
        said = "no image is left to train on" if test.all() else "too few images to hold any out"
        raise FitError(said, where=where, remedy="Give more images, or a test split")
    if rare(Y[~test]).all():
        remedy = "Give 2 or more training images with, and 2 without, some label"
        raise FitError("no label has enough training images", where=where, remedy=remedy)


def _check_tested(where: str, test: Part) -> None:
    if not test.Y.any():
        said = f"none of the {len(test)} test images has a label that can be learned"
        raise FitError(said, where=where, remedy="Give more images, or another test split")


def _unseen(test: Part) -> list[str]:
    n = int((test.unknown > 0).sum())
    missed = "each is a miss in micro F1, and its image is wrong in subset accuracy"
    return [f"{n} test images have labels that are not learned: {missed}"] if n else []


def _leaks(groups: np.ndarray | None, test: np.ndarray) -> list[str]:
    both = set() if groups is None else set(groups[test]) & set(groups[~test])
    said = f"{len(both)} groups (equal images are one) are in the training and in the test part: the test is too easy"
    return [said] if both else []
