"""What is fitted on and what is tested on: labels, the split in words, and folds that keep a group together."""

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from classify.evaluate import group_codes
from extract.errors import FitError, unknown
from extract.spec import Status

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Part:
    """Some rows: `rows` (n,) into the feature set, `y` (n,) codes, `groups` (n,) codes or None."""

    rows: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None

    def __len__(self) -> int:
        return len(self.rows)


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
    warnings: list[str]


def read_dataset(
    features: "FeatureSet", *, labels: Path | None = None, group: str = "auto", hold_out: float = 0.2, seed: int = 0
) -> Dataset:
    """Split the usable rows of a feature set into a training and a test part; count those that are not usable."""
    ok = np.asarray(features.status) == Status.OK
    names = _names_of(features) if labels is None else read_labels(labels, features.ids)
    usable = np.flatnonzero(ok & (names != ""))
    _check_usable(features, ok, usable)
    given = [features.groups[row] if group == "auto" else "" for row in usable]
    contents = [features.sha256[row].tobytes() for row in usable]
    groups = group_codes(given, contents)
    train, test, words = _split(
        np.asarray(features.splits, dtype=object)[usable], names[usable], groups, hold_out, seed
    )
    classes, labels_all = _check_classes(features.name, names[usable[train]], names[usable[test]])
    code = {name: number for number, name in enumerate(labels_all)}
    y = np.array([code[name] for name in names[usable]], dtype=np.int64)
    parts = [Part(usable[at], y[at], None if groups is None else groups[at]) for at in (train, test)]
    n_bad, n_unlabelled = int((~ok).sum()), int(ok.sum()) - len(usable)
    said = _unseen(parts[1], labels_all, len(classes)) + _leaks(train, test, given, contents)
    return Dataset(parts[0], parts[1], classes, labels_all, words, n_bad, n_unlabelled, said)


def read_labels(path: Path, ids: list[str]) -> np.ndarray:
    """Read a CSV of `path,label` as labels of the images: (N,) str, '' where it says nothing. Strict."""
    table: dict[str, str] = {}
    for line, id_, label in _csv_rows(path):
        if table.setdefault(id_, label) != label:
            raise FitError(f"two labels for {id_!r}", where=f"{path} line {line}", remedy="Keep one row per image")
    known = set(ids)
    for id_ in table:
        if id_ not in known:
            unknown("image", id_, ids, FitError, remedy=f"Each path in {path} is an id of the feature set.")
    return np.array([table.get(id_, "") for id_ in ids], dtype=object)


def _csv_rows(path: Path) -> list[tuple[int, str, str]]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if header != ["path", "label"]:
                raise FitError("the first line is not path,label", where=str(path), remedy="Name exactly these columns")
            numbered = ((reader.line_num, row) for row in reader if row)
            return [(line, *_two_cells(row, f"{path} line {line}")) for line, row in numbered]
    except (OSError, csv.Error) as error:
        raise FitError(
            f"cannot read the labels: {error}", where=str(path), remedy="Give a CSV of path,label"
        ) from error


def _two_cells(row: list[str], where: str) -> tuple[str, str]:
    if len(row) != 2:
        raise FitError(f"{len(row)} cells where two belong", where=where, remedy="Quote names that hold a comma")
    return row[0], row[1].strip()


def _names_of(features: "FeatureSet") -> np.ndarray:
    """Return the label of each row by name: (N,) str, '' where it has none."""
    labels = np.asarray(features.labels).tolist()
    return np.array([features.label_names[label] if label >= 0 else "" for label in labels], dtype=object)


def _check_usable(features: "FeatureSet", ok: np.ndarray, usable: np.ndarray) -> None:
    if len(usable):
        return
    if ok.any():
        raise FitError(
            "no image has a label",
            where=features.name,
            remedy="Give --labels FILE, or extract a folder of class folders",
        )
    raise FitError(f"none of the {len(ok)} images has features", where=features.name, remedy="See /errors in the index")


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
    test = _hold_out_rows(names, hold_out, seed) if groups is None else _hold_out_groups(names, groups, hold_out, seed)
    how = "class by class" if groups is None else "group by group, equal images being one,"
    words = (
        f"no split is given: {test.sum()} images held out {how} by seed {seed}, trained on the other {(~test).sum()}"
    )
    return np.flatnonzero(~test), np.flatnonzero(test), words


def _hold_out_rows(names: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Pick `share` of each class at random, never its last two: (n,) -> (n,) bool."""
    rng, test = np.random.default_rng(seed), np.zeros(len(names), dtype=bool)
    for name in sorted(set(names)):
        rows = rng.permutation(np.flatnonzero(names == name))
        test[rows[: min(round(share * len(rows)), max(0, len(rows) - 2))]] = True
    return test


def _hold_out_groups(names: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Pick whole groups, about `share` of the rows, so that as few classes as possible leave the rest: -> (n,) bool."""
    n_parts = min(max(2, round(1 / share)), len(set(groups)))
    y = np.unique(names, return_inverse=True)[1]
    parts = [test for _, test in _stratified(y, groups, n_parts, seed)] if n_parts > 1 else []
    chosen = max(parts, key=lambda test: len(set(np.delete(names, test))), default=np.array([], dtype=np.int64))
    return np.isin(np.arange(len(names)), chosen)


def _check_classes(where: str, train: np.ndarray, test: np.ndarray) -> tuple[list[str], list[str]]:
    """Return the classes to learn, and all labels with those that only the test part has at the end."""
    names, counts = np.unique(train.astype(object), return_counts=True) if len(train) else (np.array([]), np.array([]))
    classes = [str(name) for name in names]
    if len(classes) < 2:
        said = f"all {len(train)} training images are {classes[0]!r}" if classes else "no image is left to train on"
        raise FitError(said, where=where, remedy="A classifier needs images of two classes or more")
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


def _leaks(train: np.ndarray, test: np.ndarray, groups: list[str], contents: list[bytes]) -> list[str]:
    """Say which groups, and how many images themselves, a given split put into both parts."""
    seen, said = {contents[at] for at in train}, []
    if both := {groups[at] for at in train} & {groups[at] for at in test} - {""}:
        said.append(f"{len(both)} groups have images in the training and in the test part: the test is too easy")
    if n := sum(contents[at] in seen for at in test):
        said.append(f"{n} test images are also training images, byte for byte: the test is too easy")
    return said


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
        found = list(splitter(k, shuffle=True, random_state=seed).split(np.zeros(len(y)), y, groups))
    return [(train, test) for train, test in found if len(train) and len(test)]
