"""The index `features.h5`: which rows make up the data set now. The only file that is ever replaced.

Besides the tables that this project reads, it shows every layer as one array to anyone with HDF5: virtual datasets over
the shards, whose fill value is NaN, since a missing file would otherwise read as zeros.
"""

import contextlib
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.errors import StoreError
from extract.recipe import Recipe, Tap, view_of
from extract.record import Failure, Record, Status
from extract.store import files
from extract.store.damages import damaged
from extract.store.sealed import Attributes, seal
from extract.store.shards import Shard
from extract.store.texts import text_array
from extract.store.whole import same_content

if TYPE_CHECKING:
    import h5py

KIND = "index"
FORMAT, FORMAT_VERSION = "offshelf-features", 3
PACKAGES = ("offshelf", "torch", "torchvision", "h5py", "pillow", "numpy")
"""What computes features."""

NO_LABEL = -1
NO_SHARD = -1
NOTHING = bytes(32)
"""Stands for the SHA-256 of what could not be read."""

MAX_BYTES = 8 << 30
"""Of an index, which is read in one go. A row takes 57 bytes, and as many again as the longest name, split, group and
reason have: 64 million rows where names have 70 letters, 91 million where they have 30."""

MAX_ROW_NUMBERS = 1 << 30
"""Numbers of one image in one layer: no network makes more of the largest image."""

Shape = tuple[int, ...]
"""Of one row: (D,), or (C, H, W) of a map."""


CHANGED = Failure(Status.MISSING, "it changed while it was read: run extract again")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the index: the record, and the SHA-256 of its bytes or why they could not be read.

    `lacking` is why it has no features where no shard has a row of that content.
    """

    record: Record
    content: bytes | Failure
    lacking: Failure = CHANGED


@dataclass(frozen=True, slots=True)
class Table:
    """Where each row lies: shard number (N,) and row in it (N,), -1 for none; status (N,) and reasons."""

    shard: np.ndarray
    row: np.ndarray
    status: np.ndarray
    errors: list[str]


def locate(shards: Sequence[Shard]) -> dict[bytes, tuple[int, int]]:
    """Map the content of every stored row to its shard number and row; of several rows a good one counts."""
    places: dict[bytes, tuple[int, int]] = {}
    for number, shard in enumerate(shards):
        digests, status = shard.digests.tobytes(), shard.status.tolist()
        for row, state in enumerate(status):
            digest = digests[32 * row : 32 * row + 32]
            if digest != NOTHING and (state == Status.OK or digest not in places):
                places[digest] = number, row
    return places


def make_table(entries: Sequence[Entry], shards: Sequence[Shard]) -> Table:
    """Look up every entry's row by its content."""
    places = locate(shards)
    shard, row = np.full((2, len(entries)), NO_SHARD, np.int64)
    status, errors = np.zeros(len(entries), np.uint8), []
    for i, entry in enumerate(entries):
        failure = entry.content if isinstance(entry.content, Failure) else None
        if not isinstance(entry.content, Failure):
            if entry.content in places:
                shard[i], row[i] = places[entry.content]
                failure = _failure(shards[shard[i]], row[i])
            else:
                failure = entry.lacking
        status[i] = failure.status if failure else Status.OK
        errors.append(failure.reason if failure else "")
    return Table(shard, row, status, errors)


def _failure(shard: Shard, row: int) -> Failure | None:
    status = int(shard.status[row])
    return Failure(status, shard.errors[row].decode("utf-8", "surrogateescape")) if status else None


def write_index(
    path: Path,
    recipe: Recipe,
    entries: Sequence[Entry],
    shards: Sequence[Shard],
    shapes: Mapping[str, Shape],
    source: str,
) -> Table:
    """Write the index of `entries` in place of the one before, unless that says the same; return its table.

    `shapes` says of every tap what one row of it looks like, (D,) or (C, H, W); in further views it looks the same.
    Raises StoreError where the index would be larger than any that is read, and where it cannot be written.
    """
    table = make_table(entries, shards)
    used = sorted({int(number) for number in table.shard if number >= 0})

    def fill(file: "h5py.File") -> None:
        write_records(file, [entry.record for entry in entries])
        content = [NOTHING if isinstance(entry.content, Failure) else entry.content for entry in entries]
        file.create_dataset("sha256", data=np.frombuffer(b"".join(content), np.uint8).reshape(-1, 32))
        file.create_dataset("status", data=table.status)
        file.create_dataset("errors", data=text_array(table.errors))
        file.create_dataset("rows/shard", data=np.where(table.shard < 0, NO_SHARD, np.searchsorted(used, table.shard)))
        file.create_dataset("rows/row", data=table.row)
        _shards(file, [shards[number] for number in used])
        for layer, shape in by_layer(recipe, shapes).items():
            _virtual(file, f"layers/{layer}", table, shards, shape, recipe.store)
        file["features"] = file[f"layers/{recipe.primary.name}"]

    data = seal(KIND, _attributes(recipe, shapes, source), fill)[1]
    if len(data) > MAX_BYTES:
        remedy = "Part DATA into data sets of their own, each with a --name; the rows that are computed are kept"
        raise StoreError(f"an index of {len(table.row):,} rows is too large to be read", where=str(path), remedy=remedy)
    if not same_content(path, KIND, data, but=("created", "versions")):
        files.replace(path, data)
    return table


def by_layer(recipe: Recipe, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Say of every layer that is stored, further views included, what one row looks like."""
    return {view_of(tap.name, view): shapes[tap.name] for view in range(recipe.views) for tap in recipe.taps}


def _attributes(recipe: Recipe, shapes: Mapping[str, Shape], source: str) -> Attributes:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "key": recipe.key,
        "recipe": recipe.to_json(indent=None),
        "shapes": json.dumps({tap.name: shapes[tap.name] for tap in recipe.taps}),
        "source": source,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": json.dumps(versions()),
    }


def read_shapes(attributes: Mapping[str, Any], recipe: Recipe, path: Path) -> dict[str, Shape]:
    """Read what one row of every tap looks like; raises StoreError where that cannot be."""
    try:
        said = json.loads(attributes["shapes"])
        shapes = {tap.name: tuple(said.pop(tap.name)) for tap in recipe.taps}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(path, KIND, "it does not say what the rows of its taps look like") from error
    for tap in recipe.taps:
        if not _is_shape(shapes[tap.name], tap):
            raise damaged(path, KIND, f"it says that rows of {tap.name!r} have a shape that no row has")
    if said:
        raise damaged(path, KIND, "its taps are not those of the recipe")
    return shapes


def _is_shape(shape: Shape, tap: Tap) -> bool:
    return (
        len(shape) == (3 if tap.is_map else 1)
        and all(type(size) is int and size > 0 for size in shape)
        and math.prod(shape) <= MAX_ROW_NUMBERS
    )


def _shards(file: "h5py.File", shards: Sequence[Shard]) -> None:
    file.create_dataset("shards/name", data=text_array([shard.name for shard in shards]))
    file.create_dataset("shards/sha256", data=text_array([shard.sha256 for shard in shards]))
    file.create_dataset("shards/bytes", data=np.array([shard.n_bytes for shard in shards], np.int64))
    file.create_dataset("shards/rows", data=np.array([len(shard) for shard in shards], np.int64))


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Name the versions of Python and of those packages that are installed, for the record."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def write_records(file: "h5py.File", records: Sequence[Record]) -> None:
    """Write what is known of images but for their content: ids, labels, splits and groups, an entry for each."""
    names = sorted({record.label for record in records if record.label is not None})
    number = {name: i for i, name in enumerate(names)}
    labels = [NO_LABEL if record.label is None else number[record.label] for record in records]
    file.create_dataset("labels", data=np.array(labels, np.int64))
    file.create_dataset("label_names", data=text_array(names))
    file.create_dataset("filenames", data=text_array([record.id for record in records]))
    file.create_dataset("splits", data=text_array([record.split or "" for record in records]))
    file.create_dataset("groups", data=text_array([record.group or "" for record in records]))


def _virtual(file: "h5py.File", name: str, table: Table, shards: Sequence[Shard], shape: Shape, dtype: str) -> None:
    """Show one layer as a single array (N, *shape) over the shards; rows that lie in none read as NaN.

    By HDF5's own calls: h5py's VirtualLayout takes 7 times as long, minutes where 100,000 rows lie scattered.
    """
    import h5py

    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_fill_value(np.array(np.nan, dtype))
    layout.set_obj_track_times(False)
    here = h5py.h5s.create_simple((len(table.row), *shape))
    sources = [(f"shards/{shard.name}".encode(), h5py.h5s.create_simple((len(shard), *shape))) for shard in shards]
    dataset, begin = name.encode(), (0,) * len(shape)
    for start, stop in _runs(table):
        path, there = sources[table.shard[start]]
        here.select_hyperslab((start, *begin), (stop - start, *shape))
        there.select_hyperslab((int(table.row[start]), *begin), (stop - start, *shape))
        layout.set_virtual(here, path, dataset, there)
    parent, _, leaf = name.rpartition("/")
    kind, whole = h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple((len(table.row), *shape))
    h5py.h5d.create(file.require_group(parent).id, leaf.encode(), kind, whole, layout)


def _runs(table: Table) -> Iterator[tuple[int, int]]:
    """Cut the rows into runs that lie side by side in one shard: (start, stop) of each."""
    breaks = np.flatnonzero((np.diff(table.shard) != 0) | (np.diff(table.row) != 1)) + 1
    edges = [0, *breaks.tolist(), len(table.row)]
    for start, stop in pairwise(edges):
        if stop > start and table.shard[start] >= 0:
            yield start, stop
