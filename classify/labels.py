"""Labels and groups by name: those of the feature set, of a CSV, or read from the names of the images."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extract.errors import FitError, OptionError, unknown

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

SEPARATOR = "|"
"""Between labels, where an image has several."""
GROUPS = ("auto", "none")
"""Ways to group by name; any other is a pattern."""


def read_labels(path: Path, ids: list[str]) -> np.ndarray:
    """Read a CSV of `path,label` as labels of the images: (N,) str, '' where it says nothing. Strict."""
    table: dict[str, str] = {}
    for line, id_, label in csv_rows(path):
        if table.setdefault(id_, label) != label:
            raise FitError(f"two labels for {id_!r}", where=f"{path} line {line}", remedy="Keep one row per image")
    known = set(ids)
    for id_ in table:
        if id_ not in known:
            unknown("image", id_, ids, FitError, remedy=f"Each path in {path} is an id of the feature set")
    return np.array([table.get(id_, "") for id_ in ids], dtype=object)


def csv_rows(path: Path) -> list[tuple[int, str, str]]:
    """Read the rows of a CSV of `path,label`: -> line, path and label of each. Strict."""
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


def stored_labels(features: "FeatureSet") -> np.ndarray:
    """Return the label of each row by name: (N,) str, '' where it has none."""
    labels = np.asarray(features.labels).tolist()
    return np.array([features.label_names[label] if label >= 0 else "" for label in labels], dtype=object)


def look_joint(labels: Iterable[str]) -> list[str]:
    """Say so where labels that are taken as classes look like several in one, such as cat|dog; else []."""
    names = set(labels)
    joint = sorted(name for name in names if SEPARATOR in name)
    if not joint:
        return []
    said = (
        f"{len(joint)} of {len(names)} labels hold {SEPARATOR!r}, such as {joint[0]!r}, and each was taken as one class"
    )
    return [f"{said} of its own: --multi-label takes them as several labels of an image"]


def read_groups(features: "FeatureSet", group: str) -> list[str]:
    """Return the group of every image by name, "" for none: auto = those stored, none, or a pattern over the ids.

    What the first (...) of the pattern matches is the group, or all that it matches. Raises OptionError where it is no
    pattern, FitError where it matches no image.
    """
    if group in GROUPS:
        return list(features.groups) if group == "auto" else [""] * len(features.ids)
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise OptionError(f"--group {group!r} is no pattern: {error}", remedy=r"As in --group '_([a-z]+)_'") from error
    found = [pattern.search(id_) for id_ in features.ids]
    if not any(found):
        remedy = "Write one that is found in ids like this one"
        raise FitError(f"the pattern {group!r} matches no image", where=features.ids[0], remedy=remedy)
    return [(match[1] if pattern.groups else match[0]) or "" if match else "" for match in found]
