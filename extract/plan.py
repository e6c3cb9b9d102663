"""The plan of an extraction: what of a data set the cache lacks, why, and whether the name fits the data."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.errors import StoreError, UnreadableError
from extract.recipe import Recipe
from extract.record import Failure, Record, Status
from extract.store import FeatureSet
from extract.store.folders import list_folders
from extract.store.index import Entry, locate
from extract.store.reader import INDEX
from extract.store.shards import Shard, read_shard, shards_in

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: every image with its content, and those to compute, shard by shard.

    `reused` images have their rows already; `duplicates` will share the row of an equal image.
    """

    entries: list[Entry]
    shards: list[list[Record]]
    reused: int
    duplicates: int

    @property
    def computed(self) -> int:
        """Images that the cache lacks."""
        return sum(map(len, self.shards))


def make_plan(entries: list[Entry], stored: Collection[bytes], shard_rows: int) -> Plan:
    """Find out which contents are not `stored`; equal images are computed once."""
    planned: set[bytes] = set()
    todo, reused, duplicates = [], 0, 0
    for entry in entries:
        if entry.content in stored:
            reused += 1
        elif entry.content in planned:
            duplicates += 1
        elif isinstance(entry.content, bytes):
            planned.add(entry.content)
            todo.append(entry.record)
    shards = [todo[start : start + shard_rows] for start in range(0, len(todo), shard_rows)]
    return Plan(entries, shards, reused, duplicates)


def stored_shards(folder: Path, key: str, *, thorough: bool) -> tuple[list[Shard], list[Path]]:
    """Read what the shards of a folder know; damaged and foreign ones count as missing, and are listed.

    `thorough` looks at every byte of them. Raises UnreadableError where the disk fails: the shard itself may be whole.
    """
    shards, damaged = [], []
    for path in shards_in(folder):
        try:
            shards.append(read_shard(path, key, thorough=thorough))
        except UnreadableError:
            raise
        except StoreError as error:
            log.warning("%s: %s. Its rows are computed again", path, error.what)
            damaged.append(path)
    return shards, damaged


def stored_contents(shards: Sequence[Shard], *, but_failed: bool) -> Collection[bytes]:
    """Return the contents that have a row; without bad rows if these are to be tried again, as some always are."""

    def counts(status: int) -> bool:
        return status == Status.OK or not (but_failed or status == Status.KILLED)

    return {content for content, (number, row) in locate(shards).items() if counts(shards[number].status[row])}


def check_same_data(folder: Path, source: str, entries: Sequence[Entry]) -> None:
    """Refuse a name that stands for other images: they came from another place, and most of them are not here."""
    here = {entry.content for entry in entries}
    for other in _of_one_name(folder):
        if other.source != source and 2 * sum(digest.tobytes() in here for digest in other.sha256) < len(other):
            raise StoreError(
                f"the name {folder.parent.name!r} stands for other images, those of {other.source}",
                where=source,
                remedy="Give these another --name",
            )


def check_still_there(before: FeatureSet | None, entries: Sequence[Entry]) -> None:
    """Refuse to drop rows whose images are not gone but out of reach, as when a disk is away."""
    if before is None:
        return
    good = {name for name, status in zip(before.ids, before.status.tolist(), strict=True) if status == Status.OK}
    lost = sum(isinstance(entry.content, Failure) and entry.record.id in good for entry in entries)
    if 2 * lost > len(good):
        raise StoreError(
            f"{lost:,} of {len(good):,} images that have their rows cannot be read now",
            where=before.source,
            remedy="Check the disk that they are on; if they are gone for good, take them out of DATA",
        )


def _of_one_name(folder: Path) -> Iterator[FeatureSet]:
    """Yield the feature sets that share their name with the folder of one."""
    for each in list_folders(folder.parent.parent):
        if each.path.parent.name == folder.parent.name and (other := opened(each.index)) is not None:
            yield other


def explain_miss(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Say how a recipe without features differs from the nearest one that the data set has; None where it has none."""
    if (folder / INDEX).exists():
        return None
    compared = [(recipe.differences(other.recipe), other.name) for other in _of_one_name(folder)]
    if not compared:
        return None
    differences, nearest = min(compared, key=lambda pair: (len(pair[0]), pair[1]))
    return {"nearest": nearest, "differs_in": differences}


def opened(path: Path) -> FeatureSet | None:
    """Open an index, or say that there is none to rely on: a new one is about to be written."""
    try:
        return FeatureSet(path) if path.is_file() else None
    except StoreError as error:
        log.warning("%s: %s. It is written anew", path, error.what)
        return None
