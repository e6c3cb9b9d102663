"""The story of `extract`: source -> plan, only what the cache lacks -> engine -> index -> feature set."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from extract.contents import Contents, find_contents
from extract.engines import engine_of, probe
from extract.errors import Interrupted, StoreError
from extract.forward import Extractor, build_extractor
from extract.plan import (
    Plan,
    check_same_data,
    check_still_there,
    explain_miss,
    make_plan,
    opened,
    stored_contents,
    stored_shards,
)
from extract.progress import Progress, Silent
from extract.shard import Receipt
from extract.sources import Source, open_source
from extract.spec import ExtractSpec, Status
from extract.store import files
from extract.store.folders import CACHE_TAG, TAG, is_cache
from extract.store.index import Entry, Table, write_index
from extract.store.known import FILE as CONTENTS
from extract.store.known import Known, Signature, read_known, write_known
from extract.store.lock import held, lock_of
from extract.store.reader import INDEX, KEY_DIGITS, RECIPE, SHARDS, WEIGHTS, weights_are_whole
from extract.store.shards import Shard, read_shard
from extract.verdict import judge

log = logging.getLogger(__name__)

SHARD_ROWS = 1024
"""Rows of a shard at most; fewer where they are wide, and where they take longer than `shard.SHARD_S`."""

SHARD_BYTES = 64 << 20
MUCH = 1 << 30
"""Bytes to write that are said before the work begins."""

ById = Mapping[str, tuple[Signature, bytes]]
"""Which files were read, by the id of their record, and what they hold."""


@dataclass(frozen=True, slots=True)
class Job:
    """One extraction, opened: what was asked for, its images, what computes their rows, and the folder of the rows."""

    spec: ExtractSpec
    source: Source
    extractor: Extractor
    folder: Path
    progress: Progress

    @property
    def name(self) -> str:
        """`NAME/KEY12`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's features."""
        numbers = sum(map(math.prod, self.extractor.shapes.values()))
        return numbers * np.dtype(self.extractor.recipe.store).itemsize

    @property
    def shard_rows(self) -> int:
        """Rows of a shard at most."""
        return max(1, min(SHARD_ROWS, SHARD_BYTES // self.row_bytes))


def extract(spec: ExtractSpec, progress: Progress | None = None) -> dict[str, Any]:
    """Bring the features of a data set up to date and return the summary that `--json` prints.

    Raises an OffshelfError where the source, the backbone or the cache is not usable, and Interrupted where Ctrl-C
    ended it; images that are not usable become rows with a reason.
    """
    began = time.perf_counter()
    job = open_job(spec, progress or Silent())
    with held(lock_of(job.folder), wait=spec.wait, on_wait=job.progress.note):
        miss = explain_miss(job.folder, job.extractor.recipe)
        if miss and spec.only is None:  # some of the images are for a question, and not for who types the name
            job.progress.note(f"new features: {miss['nearest']} differs in: {'; '.join(miss['differs_in'])}")
        stored, damaged = stored_shards(job.folder / SHARDS, job.extractor.recipe.key, thorough=spec.rehash)
        plan, contents = plan_of(job, stored, remember=lambda by_id: remember(job, by_id))
        before = opened(job.folder / INDEX)
        check_still_there(before, plan.entries)
        if contents.changed:
            remember(job, contents.known)
        check_room(job, plan)
        prepare_folder(job, prove=spec.rehash or plan.computed > 0)
        receipts = run_plan(job, plan)
        table = commit(job, plan, stored, receipts)
        made = {receipt.name for receipt in receipts}
        files.remove([path for path in damaged if path.name not in made])
    seconds = round(time.perf_counter() - began, 3)
    return summary(job, plan, receipts, table, set(before.ids) if before else set()) | {
        "miss": miss,
        "seconds": seconds,
    }


def dry_run(spec: ExtractSpec, progress: Progress | None = None) -> dict[str, Any]:
    """Say what `extract` would do: rows, what of it is there, the bytes to write, and about how long it will take.

    Computes some of the rows to tell the time, and writes nothing.
    """
    job = open_job(spec, progress or Silent())
    recipe = job.extractor.recipe
    stored, _ = stored_shards(job.folder / SHARDS, recipe.key, thorough=spec.rehash)
    plan, _ = plan_of(job, stored, remember=lambda _: None)
    return {
        "features": job.name,
        "key": recipe.key,
        "rows": len(plan.entries),
        "to_compute": plan.computed,
        "reused": plan.reused,
        "layers": {name: list(shape) for name, shape in job.extractor.shapes.items()},
        "bytes": plan.computed * job.row_bytes,
        "free": files.free_bytes(job.folder),
        **_estimate(job, plan),
        "miss": explain_miss(job.folder, recipe),
        "notes": list(job.source.notes),
    }


def _estimate(job: Job, plan: Plan) -> dict[str, float | None]:
    """Tell from a short probe how long the computing will take, start-up apart."""
    if not plan.computed:
        return {"images_per_s": None, "estimated_s": 0.0}
    speed = probe(plan.shards, job.extractor, job.spec)
    return {"images_per_s": round(speed, 1), "estimated_s": round(plan.computed / speed, 1)}


def open_job(spec: ExtractSpec, progress: Progress) -> Job:
    """Open the source and the backbone; their features lie in CACHE/NAME/KEY12."""
    source = chosen(open_source(spec.data, spec.root), spec.only)
    for note in source.notes:
        progress.note(note)
    extractor = build_extractor(spec)
    folder = spec.cache / (spec.name or source.name) / extractor.recipe.key[:KEY_DIGITS]
    return Job(spec, source, extractor, folder, progress)


def chosen(source: Source, only: frozenset[str] | None) -> Source:
    """Return a source with the records of these ids, of all by default."""
    if only is None:
        return source
    return replace(source, records=tuple(record for record in source.records if record.id in only))


def plan_of(job: Job, stored: Sequence[Shard], *, remember: Callable[[ById], None]) -> tuple[Plan, Contents]:
    """Plan what the cache lacks, once it is sure that the name fits the data; `remember` is called at Ctrl-C."""
    known = Known() if job.spec.rehash else read_known(job.folder.parent / CONTENTS)
    contents = find_contents(
        job.source.records,
        known,
        workers=job.spec.workers,
        progress=job.progress,
        remember=remember,
    )
    entries = [Entry(record, content) for record, content in zip(job.source.records, contents.digests, strict=True)]
    if job.spec.only is None:  # some of them say nothing of what the others are
        check_same_data(job.folder, job.source.origin, entries)
    return make_plan(entries, stored_contents(stored, but_failed=job.spec.retry_failed), job.shard_rows), contents


def remember(job: Job, by_id: ById) -> None:
    """Note which files were read, so that the next run need not; without room for it, it reads them again."""
    try:
        write_known(job.folder.parent / CONTENTS, by_id)
    except StoreError as error:
        log.warning("%s. The next run will read all files again", error)


def prepare_folder(job: Job, *, prove: bool) -> None:
    """Make the folder, with the recipe in words and the weights of the cut network beside what they compute.

    Weights that are there already are read and proven only if `prove`.
    """
    path, recipe = job.folder / WEIGHTS, job.extractor.recipe
    if not is_cache(job.spec.cache):
        files.replace(job.spec.cache / TAG, CACHE_TAG)
    there = weights_are_whole(path, recipe) if prove else path.is_file()
    if not there or not (job.folder / RECIPE).is_file():
        files.publish(job.folder / RECIPE, recipe.to_json().encode() + b"\n")
        files.replace(path, job.extractor.weights())


def check_room(job: Job, plan: Plan) -> None:
    """Say before the work begins that much is to be written; raise StoreError where the disk has no room for it."""
    if not plan.computed:
        return
    needed, free = plan.computed * job.row_bytes, files.free_bytes(job.folder)
    said = f"{plan.computed:,} rows take {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free"
    if needed > free:
        remedy = "Free some, take another --cache, fewer or pooled --layer, or --store float16"
        raise StoreError(said, where=str(job.spec.cache), remedy=remedy)
    if needed > MUCH:
        job.progress.note(said)


def run_plan(job: Job, plan: Plan) -> list[Receipt]:
    """Compute the shards that are missing; raises Interrupted, saying what is kept."""
    job.progress.start("extract", plan.computed)
    receipts: list[Receipt] = []
    stopped = True
    engine = engine_of(job.spec)(plan.shards, job.extractor, job.folder / SHARDS, job.spec, job.progress)
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(engine):
        for receipt in engine:
            receipts.append(receipt)
        stopped = False
    if stopped:
        kept = plan.reused + sum(receipt.rows for receipt in receipts)
        raise Interrupted(
            f"interrupted: {kept:,} of {plan.reused + plan.computed:,} rows are kept",
            where=str(job.folder),
            remedy="Run the same command again: it goes on from there",
        )
    return receipts


def commit(job: Job, plan: Plan, stored: Sequence[Shard], receipts: Sequence[Receipt]) -> Table:
    """Write the index over the shards that were there and the new ones."""
    recipe, folder = job.extractor.recipe, job.folder
    shards = [*stored, *(read_shard(folder / SHARDS / receipt.name, recipe.key) for receipt in receipts)]
    shards.sort(key=lambda shard: shard.name)  # as the next run finds them
    return write_index(folder / INDEX, recipe, plan.entries, shards, job.extractor.shapes, job.source.origin)


def summary(job: Job, plan: Plan, receipts: Sequence[Receipt], table: Table, before: set[str]) -> dict[str, Any]:
    """Sum up a run for people and scripts."""
    return {
        "features": job.name,
        "path": str(job.folder / INDEX),
        "key": job.extractor.recipe.key,
        "rows": len(plan.entries),
        "computed": plan.computed,
        "reused": plan.reused,
        "duplicates": plan.duplicates,
        "dropped": len(before - {entry.record.id for entry in plan.entries}),
        "bad": int((table.status != Status.OK).sum()),
        "bad_rows": list(_bad_rows(plan, table)),
        "bytes": files.bytes_in(job.folder),
        **judge(receipts, job.spec, job.extractor.recipe),
        "notes": list(job.source.notes),
    }


def _bad_rows(plan: Plan, table: Table, most: int = 20) -> Iterator[dict[str, str]]:
    """Yield the first bad rows with their reasons."""
    for i in np.flatnonzero(table.status != Status.OK)[:most]:
        yield {
            "id": plan.entries[i].record.id,
            "status": Status.NAMES[table.status[i]],
            "reason": table.errors[i],
        }
