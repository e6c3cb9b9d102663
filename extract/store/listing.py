"""What the parts of an extraction leave for its index: the listing of all images, and what each found in its own.

They lie beside the shards, in `parts/`: `listing.h5` is an index without rows, the same from all parts that saw the
same images; `K-of-N.h5` is the content of every image of part K, or why it could not be read; `K-of-N-contents.h5` is
what need not be read again. A part writes them before its rows. What it found in other images than those that are
listed counts for nothing.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from extract.errors import StoreError
from extract.recipe import Recipe
from extract.record import Failure, Record, Status
from extract.store import files
from extract.store.damages import damaged
from extract.store.folders import PARTS
from extract.store.index import NO_LABEL, NOTHING, Shape, read_shapes, write_records
from extract.store.sealed import open_sealed, read_part, seal
from extract.store.texts import text_array, texts_of
from extract.store.whole import same_content

LISTING, PART = "listing", "part"
FORMAT_VERSION = 1
PART_NAME = re.compile(r"([1-9]\d{0,8})-of-([1-9]\d{0,8})\.h5")
MAX_PARTS = 10**9 - 1
"""As many as their names can tell."""


@dataclass(frozen=True, slots=True)
class About:
    """What features are: their recipe, what one row of each tap looks like, and where the images come from."""

    recipe: Recipe
    shapes: Mapping[str, Shape]
    source: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All images of a data set, and what their features are; `sha256` tells one listing from another."""

    about: About
    records: Sequence[Record]
    sha256: str


def slice_of(part: tuple[int, int], n: int) -> range:
    """Return the rows of part (K, N) of n rows: consecutive, so that its images lie together; sizes differ by one."""
    number, of = part
    return range((number - 1) * n // of, number * n // of)


def parts_of(rows: np.ndarray, of: int, n: int) -> list[int]:
    """Return which parts of so many have these rows (m,) of n, each once, in order: `slice_of` the other way."""
    return np.unique(-(-(rows.astype(np.int64) + 1) * of // n)).tolist()


def contents_path(folder: Path, part: tuple[int, int]) -> Path:
    """Name the file of what a part knows of its files."""
    return folder / PARTS / f"{part[0]}-of-{part[1]}-contents.h5"


def write_listing(folder: Path, about: About, records: Sequence[Record]) -> str:
    """Write the listing in place of one of other images, and return its SHA-256: all parts of one have the same."""
    attributes = {
        "format_version": FORMAT_VERSION,
        "recipe": about.recipe.to_json(indent=None),
        "shapes": json.dumps({tap.name: about.shapes[tap.name] for tap in about.recipe.taps}),
        "source": about.source,
    }
    path = folder / PARTS / f"{LISTING}.h5"
    digest, data = seal(LISTING, attributes, lambda file: write_records(file, records))
    if not same_content(path, LISTING, data, but=()):
        files.replace(path, data)
    return digest


def read_listing(folder: Path) -> Listing:
    """Read the listing; raises StoreError where there is none, or it is damaged."""
    path = folder / PARTS / f"{LISTING}.h5"
    if not path.is_file():
        raise StoreError("no part of it has been computed", where=str(folder), remedy="See: extract --part K/N")
    file, table = open_sealed(path, LISTING)
    with file:
        names = ("labels", "label_names", "filenames", "splits", "groups")
        labels, *texts = (read_part(file, path, LISTING, table, name) for name in names)
    try:
        recipe = Recipe.from_json(table.attributes["recipe"])
        records = list(_records(labels.tolist(), *map(texts_of, texts)))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, AttributeError) as error:
        raise damaged(path, LISTING, "it does not list images") from error
    about = About(recipe, read_shapes(table.attributes, recipe, path), str(table.attributes.get("source", "")))
    return Listing(about, records, table.sha256)


def _records(
    labels: Sequence[int], names: Sequence[str], ids: Sequence[str], splits: Sequence[str], groups: Sequence[str]
) -> Iterator[Record]:
    for label, name, split, group in zip(labels, ids, splits, groups, strict=True):
        yield Record(name, "", names[label] if label != NO_LABEL else None, split or None, group or None)


def write_part(folder: Path, part: tuple[int, int], listing: str, contents: Sequence[bytes | Failure]) -> Path:
    """Write what a part found in its images, in their order, and return where; `listing` is the SHA-256 of theirs."""
    failures = [content if isinstance(content, Failure) else None for content in contents]

    def fill(file: h5py.File) -> None:
        digests = b"".join(NOTHING if isinstance(content, Failure) else content for content in contents)
        file.create_dataset("sha256", data=np.frombuffer(digests, np.uint8).reshape(-1, 32))
        file.create_dataset("status", data=np.array([f.status if f else Status.OK for f in failures], np.uint8))
        file.create_dataset("errors", data=text_array([f.reason if f else "" for f in failures]))

    path = folder / PARTS / f"{part[0]}-of-{part[1]}.h5"
    files.replace(path, seal(PART, {"format_version": FORMAT_VERSION, "listing": listing}, fill)[1])
    return path


def read_parts(folder: Path, listing: Listing) -> dict[tuple[int, int], list[bytes | Failure]]:
    """Read what the parts found whose images are those of this listing: the contents of each, in order.

    Raises StoreError where a file is damaged.
    """
    found = {}
    for path in sorted((folder / PARTS).glob("*-of-*.h5")):
        if not (name := PART_NAME.fullmatch(path.name)):
            continue
        part = int(name[1]), int(name[2])
        contents = _read_part(path, listing.sha256)
        if contents is not None and len(contents) != len(slice_of(part, len(listing.records))):
            raise damaged(path, PART, "it has not as many images as such a part")
        if contents is not None:
            found[part] = contents
    return found


def _read_part(path: Path, listing: str) -> list[bytes | Failure] | None:
    """Read what one part found; None where its images are others."""
    file, table = open_sealed(path, PART)
    with file:
        if table.attributes.get("listing") != listing or table.attributes.get("format_version") != FORMAT_VERSION:
            return None
        digests, status, errors = (read_part(file, path, PART, table, name) for name in ("sha256", "status", "errors"))
    if digests.shape != (len(status), 32) or errors.shape != status.shape:
        raise damaged(path, PART, "its datasets are not of one length")
    rows = zip(digests, status.tolist(), texts_of(errors), strict=True)
    return [Failure(state, reason) if state else digest.tobytes() for digest, state, reason in rows]
