"""The index of an extraction: kept up with its shards while they come in, or made of what its parts have computed."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from extract.errors import StoreError
from extract.plan import check_same_data, check_still_there, opened, stored_shards
from extract.record import Failure, Status
from extract.store import files
from extract.store.folders import SetFolder, choose_folders
from extract.store.index import NO_SHARD, Entry, Table, write_index
from extract.store.known import FILE as CONTENTS
from extract.store.known import read_known, write_known
from extract.store.listing import About, Listing, contents_path, parts_of, read_listing, read_parts, slice_of
from extract.store.lock import held
from extract.store.reader import INDEX, SHARDS
from extract.store.shards import Shard, read_shard

COMMIT_S, COMMIT_SHARE = 300.0, 20
"""After how long an index is written over what is there, and at most so seldom that it takes this part of the time."""

MOST_SAID = 40
"""Runs of parts that are named in a line."""

NOT_YET = Failure(Status.KILLED, "not computed yet: run extract again")
NOT_BEGUN = Failure(Status.KILLED, "not computed yet: no part has come to it")

Parts = Mapping[tuple[int, int], Sequence[bytes | Failure]]
"""What each part (K, N) has found in its images."""


class Commits:
    """Writes the index of one extraction: now and then while shards come in, for who reads it then, and in the end.

    `entries` are all the images, and `shards` those that are there already.
    """

    def __init__(self, folder: Path, about: About, entries: Sequence[Entry], shards: Sequence[Shard]) -> None:
        self._folder, self._about = folder, about
        self._entries, self._shards = entries, list(shards)
        self._due = time.monotonic() + COMMIT_S

    def add(self, name: str) -> None:
        """Take in a shard that was written, and write the index where that was long ago."""
        self._shards.append(read_shard(self._folder / SHARDS / name, self._about.recipe.key))
        if (began := time.monotonic()) >= self._due:
            self.write(otherwise=NOT_YET)
            ended = time.monotonic()
            self._due = ended + max(COMMIT_S, COMMIT_SHARE * (ended - began))

    def write(
        self, reasons: Mapping[bytes | Failure, Failure] | None = None, otherwise: Failure | None = None
    ) -> Table:
        """Write the index; of contents without a row it says one of these reasons, or `otherwise`, or what they say."""
        known = reasons or {}
        entries = [_lacking(entry, known.get(entry.content, otherwise)) for entry in self._entries]
        shards = sorted(self._shards, key=lambda shard: shard.name)  # as the next run finds them
        about = self._about
        return write_index(self._folder / INDEX, about.recipe, entries, shards, about.shapes, about.source)


def _lacking(entry: Entry, why: Failure | None) -> Entry:
    return Entry(entry.record, entry.content, why) if why else entry


def commit_parts(features: str, cache: Path, *, wait: bool = False, on_wait: Callable[[str], None]) -> dict[str, Any]:
    """Write the index over what parts of an extraction have computed, and return the summary that `--json` prints.

    `NAME`, or `NAME/KEY` where a name has several. Rows that no part has computed are rows with that reason: `missing`
    counts them, `again` names their parts, and the next extraction computes them. Raises StoreError where nothing is
    computed, where a part is at work, and where the images are not, or not yet, known as those of that name.
    """
    folder = _begun(features, cache)
    with held(folder.lock, wait=wait, on_wait=on_wait):
        listing = read_listing(folder.path)
        parts = _read(folder, listing)
        entries = _entries(listing, parts)
        _check_name(folder, listing, entries, parts)
        check_still_there(opened(folder.index), [entry for entry in entries if entry.content is not NOT_BEGUN])
        stored, damaged = stored_shards(folder.path / SHARDS, listing.about.recipe.key, thorough=False)
        table = Commits(folder.path, listing.about, entries, stored).write()
        files.remove(damaged)
        _remember(folder, listing, parts)
    return {
        "features": folder.name,
        "path": str(folder.index),
        "key": listing.about.recipe.key,
        "rows": len(entries),
        "bad": int((table.status != Status.OK).sum()),
        **_missing(len(entries), parts, table),
        "bytes": files.bytes_in(folder.path),
    }


def _begun(features: str, cache: Path) -> SetFolder:
    """Find the one feature set of that name of which parts have been computed."""
    found = [folder for folder in choose_folders([features], cache) if folder.parts()]
    if not found:
        remedy = "Compute them with: extract DATA --part K/N"
        raise StoreError("no parts of it have been computed", where=features, remedy=remedy)
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise StoreError(f"{features!r} has parts of {len(found)} recipes: {names}", remedy="Say which, as NAME/KEY")
    return found[0]


def _read(folder: SetFolder, listing: Listing) -> Parts:
    """Read what the parts found; StoreError where none has seen these images: an index without a row is of no use."""
    if parts := read_parts(folder.path, listing):
        return parts
    remedy = "Compute its parts, all of them: those of other images, or of another place, do not count"
    raise StoreError("no part has seen the images that are listed now", where=listing.about.source, remedy=remedy)


def _check_name(folder: SetFolder, listing: Listing, entries: Sequence[Entry], parts: Parts) -> None:
    """Refuse a name that stands for other images, or may: they were moved, and few parts have seen them there."""
    try:
        check_same_data(folder.path, listing.about.source, entries)
    except StoreError as error:
        unseen = np.flatnonzero([entry.content is NOT_BEGUN for entry in entries])
        if not len(unseen):
            raise
        remedy = f"Run the other parts first ({briefly(_again(unseen, len(entries), parts))}), and this again"
        said = f"{error.what}, as far as parts have seen them"
        raise StoreError(said, where=error.where, remedy=f"{remedy}; or give them another --name") from error


def _entries(listing: Listing, parts: Parts) -> list[Entry]:
    """Put what the parts found beside all images; of two that have seen an image, one that could read it counts."""
    contents: list[bytes | Failure] = [NOT_BEGUN] * len(listing.records)
    lacking = [NOT_BEGUN] * len(listing.records)
    for part, found in parts.items():
        why = Failure(Status.KILLED, f"not computed yet: part {part[0]}/{part[1]} has not come to its end")
        for row, content in zip(slice_of(part, len(contents)), found, strict=True):
            if not isinstance(contents[row], bytes):
                contents[row], lacking[row] = content, why
    return [Entry(*known) for known in zip(listing.records, contents, lacking, strict=True)]


def _missing(n: int, parts: Parts, table: Table) -> dict[str, Any]:
    """Count the rows that no part has computed, and name the parts that they belong to."""
    rows = np.flatnonzero((table.shard == NO_SHARD) & (table.status == Status.KILLED))
    return {"missing": len(rows), "again": _again(rows, n, parts)}


def _again(rows: np.ndarray, n: int, parts: Collection[tuple[int, int]]) -> list[str]:
    """Name the parts that have these rows (m,) of n: of as many as most parts are of, and the fewest of these."""
    counts = Counter(of for _, of in parts)
    of = min(counts, key=lambda each: (-counts[each], each))
    return [f"{number}/{of}" for number in parts_of(rows, of, n)]


def briefly(again: Sequence[str]) -> str:
    """Write parts of one division, in order, in few words: 2/9, 5/9, 6/9 -> `2/9, 5-6/9`, as arrays of Slurm count."""
    numbers = [int(each.partition("/")[0]) for each in again]
    runs = [list(run) for _, run in groupby(enumerate(numbers), key=lambda each: each[1] - each[0])]
    spans = [(run[0][1], run[-1][1]) for run in runs]
    said = [f"{first}" if first == last else f"{first}-{last}" for first, last in spans]
    of = again[0].partition("/")[2]
    more = [f"and {len(said) - MOST_SAID} more such"] if len(said) > MOST_SAID else []
    return ", ".join([*(f"{each}/{of}" for each in said[:MOST_SAID]), *more])


def _remember(folder: SetFolder, listing: Listing, parts: Parts) -> None:
    """Join what the parts know of their files, so that the next extraction need not read them."""
    path = folder.path.parent / CONTENTS
    known = dict(read_known(path).by_id)
    for part in parts:
        known |= read_known(contents_path(folder.path, part)).by_id
    ids = {record.id for record in listing.records}
    write_known(path, {name: what for name, what in known.items() if name in ids})
