"""The story of `extract`: source -> plan, only what the cache lacks -> engine -> index -> feature set."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extract.engines import ENGINES
from extract.errors import StoreError
from extract.forward import Extractor, build_extractor
from extract.loader import content_digests
from extract.progress import Progress, Silent
from extract.shard import Receipt, Stages
from extract.sources import Source, open_source
from extract.spec import ExtractSpec, Recipe, Record, Status
from extract.store import files, list_features
from extract.store.index import Entry, Table, locate, write_index
from extract.store.reader import INDEX, KEY_DIGITS, RECIPE, SHARDS, WEIGHTS, FeatureSet, weights_are_whole
from extract.store.shards import Shard, read_shard, shards_in

log = logging.getLogger(__name__)

SHARD_ROWS = 1024
"""A run that is killed loses the rows of the shard it was at: ResNet-50 computes as many in 40 s on two cores."""

SHARD_BYTES = 64 << 20
CACHE_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Cached features of offshelf; safe to delete.\n"
HINTS = {
    "read": "images come slowly from the disk: a faster disk, or tar files instead of many small ones",
    "decode": "decoding is the limit: more cores (--workers), or smaller images",
    "forward": "the network is the limit: a GPU (--device cuda), --precision bf16, or a smaller network",
    "write": "writing is the limit: fewer or smaller taps, or a faster disk",
}


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


def extract(spec: ExtractSpec, progress: Progress | None = None) -> dict[str, Any]:
    """Bring the features of a data set up to date and return the summary that `--json` prints.

    Raises an OffshelfError where the source, the backbone or the cache is not usable; images that are not usable become
    rows with a reason.
    """
    began, progress = time.perf_counter(), progress or Silent()
    source, extractor, folder, stored, plan = _planned(spec, progress, repair=True)
    prepare_folder(folder, extractor)
    receipts = run_plan(plan, extractor, folder, spec, progress)
    before = _ids_before(folder)
    table = commit(plan, stored, receipts, extractor, folder, source)
    return summary(plan, receipts, table, folder, extractor.recipe, before) | {
        "notes": list(source.notes),
        "seconds": round(time.perf_counter() - began, 3),
    }


def dry_run(spec: ExtractSpec, progress: Progress | None = None) -> dict[str, Any]:
    """Say what `extract` would do: rows, what of it is there, and the bytes to write; writes nothing."""
    source, extractor, folder, _, plan = _planned(spec, progress or Silent(), repair=False)
    return {
        "features": f"{folder.parent.name}/{folder.name}",
        "key": extractor.recipe.key,
        "rows": len(plan.entries),
        "to_compute": plan.computed,
        "reused": plan.reused,
        "layers": extractor.dims,
        "bytes": plan.computed * _row_bytes(extractor),
        "notes": list(source.notes),
    }


def _planned(
    spec: ExtractSpec, progress: Progress, *, repair: bool
) -> tuple[Source, Extractor, Path, list[Shard], Plan]:
    """Open the source and the backbone, and plan what the cache lacks, once it is sure that the name fits the data."""
    source = open_source(spec.data, spec.root)
    extractor = build_extractor(spec)
    folder = feature_folder(spec, source, extractor.recipe)
    stored = stored_shards(folder, extractor.recipe.key, repair=repair)
    plan = make_plan(source, stored, extractor, spec, progress)
    _check_same_data(folder, source, plan)
    return source, extractor, folder, stored, plan


def feature_folder(spec: ExtractSpec, source: Source, recipe: Recipe) -> Path:
    """Return where the feature set lies: CACHE/NAME/KEY12."""
    return spec.cache / (spec.name or source.name) / recipe.key[:KEY_DIGITS]


def prepare_folder(folder: Path, extractor: Extractor) -> None:
    """Make the folder, with the recipe in words and the weights of the cut network beside what they compute."""
    if not weights_are_whole(folder / WEIGHTS, extractor.recipe):
        files.publish(folder.parent.parent / "CACHEDIR.TAG", CACHE_TAG.encode())
        files.publish(folder / RECIPE, extractor.recipe.to_json().encode() + b"\n")
        files.replace(folder / WEIGHTS, extractor.weights())


def stored_shards(folder: Path, key: str, *, repair: bool) -> list[Shard]:
    """Read what the shards of a folder know; damaged and foreign ones count as missing, and are removed if `repair`."""
    shards = []
    for path in shards_in(folder / SHARDS):
        try:
            shards.append(read_shard(path, key))
        except StoreError as error:
            log.warning("%s: %s. Its rows are computed again", path, error.what)
            if repair:
                files.remove(path)
    return shards


def make_plan(
    source: Source, stored: Sequence[Shard], extractor: Extractor, spec: ExtractSpec, progress: Progress
) -> Plan:
    """Hash every image and find out which contents have no row yet; equal images are computed once."""
    stored_contents, known = set(locate(stored)), set()
    todo, reused, duplicates = [], 0, 0
    entries: list[Entry] = []
    progress.start("hash", len(source.records))
    for record, content in zip(source.records, content_digests(source.records, workers=spec.workers), strict=True):
        entries.append(Entry(record, content))
        if content in stored_contents:
            reused += 1
        elif content in known:
            duplicates += 1
        elif isinstance(content, bytes):
            known.add(content)
            todo.append(record)
        progress.advance(1)
    size = max(1, min(SHARD_ROWS, SHARD_BYTES // _row_bytes(extractor)))
    shards = [todo[start : start + size] for start in range(0, len(todo), size)]
    return Plan(entries, shards, reused, duplicates)


def _row_bytes(extractor: Extractor) -> int:
    return sum(extractor.dims.values()) * np.dtype(extractor.recipe.store).itemsize


def _check_same_data(folder: Path, source: Source, plan: Plan) -> None:
    """Refuse a name that stands for other images: they came from another place, and most of them are not here."""
    here = {entry.content for entry in plan.entries}
    for found in list_features(folder.parent.parent):
        other = _opened(found.path) if found.name == folder.parent.name else None
        if other is None or other.source == source.root:
            continue
        if 2 * sum(digest.tobytes() in here for digest in other.sha256) < len(other):
            raise StoreError(
                f"the name {found.name!r} stands for other images, those of {other.source}",
                where=source.root,
                remedy="Give these another --name",
            )


def run_plan(plan: Plan, extractor: Extractor, folder: Path, spec: ExtractSpec, progress: Progress) -> list[Receipt]:
    """Compute the shards that are missing."""
    progress.start("extract", plan.computed)
    return list(ENGINES["local"](plan.shards, extractor, folder / SHARDS, spec, progress.advance))


def _ids_before(folder: Path) -> set[str]:
    before = _opened(folder / INDEX)
    return set(before.ids) if before else set()


def _opened(path: Path) -> FeatureSet | None:
    """Open an index, or say that there is none to rely on: a new one is about to be written."""
    try:
        return FeatureSet(path) if path.is_file() else None
    except StoreError as error:
        log.warning("%s: %s. It is written anew", path, error.what)
        return None


def commit(
    plan: Plan, stored: Sequence[Shard], receipts: Sequence[Receipt], extractor: Extractor, folder: Path, source: Source
) -> Table:
    """Write the index over the shards that were there and the new ones."""
    shards = [*stored, *(read_shard(folder / SHARDS / receipt.name, extractor.recipe.key) for receipt in receipts)]
    return write_index(folder / INDEX, extractor.recipe, plan.entries, shards, extractor.dims, source.root)


def summary(
    plan: Plan, receipts: Sequence[Receipt], table: Table, folder: Path, recipe: Recipe, before: set[str]
) -> dict[str, Any]:
    """Sum up a run for people and scripts."""
    stages = Stages()
    for receipt in receipts:
        stages.add(receipt.stages)
    total = sum(stages.seconds.values())
    bottleneck = max(stages.seconds, key=stages.seconds.__getitem__) if total else None
    return {
        "features": f"{folder.parent.name}/{folder.name}",
        "path": str(folder / INDEX),
        "key": recipe.key,
        "rows": len(plan.entries),
        "computed": plan.computed,
        "reused": plan.reused,
        "duplicates": plan.duplicates,
        "dropped": len(before - {entry.record.id for entry in plan.entries}),
        "bad": int((table.status != Status.OK).sum()),
        "bad_rows": list(_bad_rows(plan, table)),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "images_per_s": round(plan.computed / total, 1) if total else None,
        "stages": {name: round(seconds / total, 3) if total else 0.0 for name, seconds in stages.seconds.items()},
        "bottleneck": bottleneck,
        "hint": HINTS[bottleneck] if bottleneck else None,
    }


def _bad_rows(plan: Plan, table: Table, most: int = 20) -> Iterator[dict[str, str]]:
    """Yield the first bad rows with their reasons."""
    for i in np.flatnonzero(table.status != Status.OK)[:most]:
        yield {
            "id": plan.entries[i].record.id,
            "status": Status.NAMES[table.status[i]],
            "reason": table.errors[i],
        }
