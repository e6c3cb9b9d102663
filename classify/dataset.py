"""What is fitted on and what is tested on: the labelled rows of a feature set, and their split in words."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from classify.evaluate import group_codes
from classify.folds import Part, hold_out_groups, hold_out_rows
from classify.labels import look_joint, read_groups, read_labels, stored_labels
from extract.errors import FitError
from extract.record import Status

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet


FEW_GROUPS = 2
"""Up to which the test part says little of other groups."""


@dataclass(frozen=True)
class Dataset:
    """The labelled rows of a feature set, split. Codes count `labels`: the classes, then what only tests have."""

    train: Part
    test: Part
    classes: list[str]
    labels: list[str]
    split: str
    n_bad: int
    n_unlabelled: int
    n_named_groups: int
    warnings: list[str]


def read_dataset(
    features: "FeatureSet",
    *,
    labels: Path | None = None,
    group: str = "auto",
    hold_out: float = 0.2,
    seed: int = 0,
    near: np.ndarray | None = None,
) -> Dataset:
    """Split the usable rows of a feature set into a training and a test part; count those that are not usable.

    `near` (N,) numbers the near-duplicates of all images, each of the others having a number of its own.
    """
    ok = np.asarray(features.status) == Status.OK
    names = stored_labels(features) if labels is None else read_labels(labels, features.ids)
    usable = np.flatnonzero(ok & (names != ""))
    _check_usable(features, ok, usable)
    named = read_groups(features, group)
    given = [named[row] for row in usable]
    contents = [features.sha256[row].tobytes() for row in usable]
    near = None if near is None else near[usable]
    groups, twins = group_codes(given, contents, near), group_codes([""] * len(usable), contents, near)
    train, test, words = _split(
        np.asarray(features.splits, dtype=object)[usable], names[usable], groups, hold_out, seed
    )
    classes, labels_all = _check_classes(features.name, names[usable[train]], names[usable[test]])
    code = {name: number for number, name in enumerate(labels_all)}
    y = np.array([code[name] for name in names[usable]], dtype=np.int64)
    parts = [Part(usable[at], y[at], _of(groups, at), _of(twins, at)) for at in (train, test)]
    n_bad, n_unlabelled = int((~ok).sum()), int(ok.sum()) - len(usable)
    said = _unseen(parts[1], labels_all, len(classes)) + _leaks(train, test, given, contents)
    said += look_joint(labels_all) + _few_groups([given[at] for at in test])
    n_named = len(set(given) - {""})
    return Dataset(parts[0], parts[1], classes, labels_all, words, n_bad, n_unlabelled, n_named, said)


def _of(codes: np.ndarray | None, at: np.ndarray) -> np.ndarray | None:
    return None if codes is None else codes[at]


def _check_usable(features: "FeatureSet", ok: np.ndarray, usable: np.ndarray) -> None:
    if len(usable):
        return
    if ok.any():
        raise FitError(
            "no image has a label",
            where=features.name,
            remedy="Give --labels FILE, or extract a folder of class folders",
        )
    remedy = f"See why: pipeline.py cache info {features.name}"
    raise FitError(f"none of the {len(ok)} images has features", where=features.name, remedy=remedy)


def _split(
    splits: np.ndarray, names: np.ndarray, groups: np.ndarray | None, hold_out: float, seed: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Choose the test rows: the test split, else val beside train, else some held out: -> train, test, why in words."""
    has = set(splits)
    given = "test" if "test" in has else "val" if {"train", "val"} <= has else ""
    if given:
        test = splits == given
        rest = ", the split 'val' among them" if given == "test" and "val" in has else ""
        words = f"tested on the {test.sum()} images of the split {given!r}, trained on the other {(~test).sum()}{rest}"
        return np.flatnonzero(~test), np.flatnonzero(test), words
    test = hold_out_rows(names, hold_out, seed) if groups is None else hold_out_groups(names, groups, hold_out, seed)
    how = "class by class" if groups is None else "group by group, equal images being one,"
    words = (
        f"no split is given: {test.sum()} images held out {how} by seed {seed}, trained on the other {(~test).sum()}"
    )
    return np.flatnonzero(~test), np.flatnonzero(test), words


def _check_classes(where: str, train: np.ndarray, test: np.ndarray) -> tuple[list[str], list[str]]:
    """Return the classes to learn, and all labels with those that only the test part has at the end."""
    names, counts = np.unique(train.astype(object), return_counts=True) if len(train) else (np.array([]), np.array([]))
    classes = [str(name) for name in names]
    if len(classes) < 2:
        said = f"all {len(train)} training images are {classes[0]!r}" if classes else "no image is left to train on"
        raise FitError(said, where=where, remedy="Give images of two classes or more")
    if rare := [name for name, count in zip(classes, counts, strict=True) if count < 2]:
        shown = ", ".join(map(repr, rare[:3])) + (f" and {len(rare) - 3} more" if len(rare) > 3 else "")
        raise FitError(f"fewer than 2 training images of {shown}", where=where, remedy="Add images or drop the class")
    if not len(test):
        raise FitError(
            "too few images to hold any out", where=where, remedy="Give 3 or more per class, or a test split"
        )
    return classes, classes + sorted(set(test) - set(classes))


def _unseen(test: Part, labels: list[str], n_classes: int) -> list[str]:
    """Say which labels only the test part has."""
    counts = np.bincount(test.y, minlength=len(labels))
    return [
        f"{counts[code]} test images of {labels[code]!r}, which no training image has: each counts as an error"
        for code in range(n_classes, len(labels))
    ]


def _few_groups(groups: list[str]) -> list[str]:
    """Say so where the test part is of one or two groups: what holds of these need not hold of others."""
    n = len(set(groups))
    if "" in groups or n > FEW_GROUPS:
        return []
    which = "of one group" if n == 1 else f"of {n} groups"
    return [f"the test images are {which}: how others would fare can hardly be told, and intervals are as wide"]


def _leaks(train: np.ndarray, test: np.ndarray, groups: list[str], contents: list[bytes]) -> list[str]:
    """Say which groups, and how many images themselves, a given split put into both parts."""
    seen, said = {contents[at] for at in train}, []
    if both := {groups[at] for at in train} & {groups[at] for at in test} - {""}:
        said.append(f"{len(both)} groups have images in the training and in the test part: the test is too easy")
    if n := sum(contents[at] in seen for at in test):
        said.append(f"{n} test images are also training images, byte for byte: the test is too easy")
    return said
