"""One extraction, opened: what it asks for, what of it the cache lacks, where its rows go, and their computing."""

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract.contents import Contents, find_contents
from extract.engines import engine_of
from extract.errors import Interrupted, StoreError
from extract.forward import Extractor
from extract.plan import Plan, check_same_data, make_plan, stored_contents
from extract.progress import Progress
from extract.shard import Receipt
from extract.sources import Source
from extract.spec import ExtractSpec
from extract.store import files
from extract.store.arrivals import Arrivals
from extract.store.folders import CACHE_TAG, GOLDEN, TAG, is_cache
from extract.store.index import Entry
from extract.store.known import FILE as CONTENTS
from extract.store.known import Known, Signature, read_known, write_known
from extract.store.listing import About, contents_path
from extract.store.reader import RECIPE, SHARDS, WEIGHTS, weights_are_whole
from extract.store.relay import Relay
from extract.store.shards import Shard

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

    @property
    def contents(self) -> Path:
        """The file of what is known of its images; parts have one each, as one would replace that of the others."""
        part = self.spec.part
        return contents_path(self.folder, part) if part else self.folder.parent / CONTENTS

    @property
    def about(self) -> About:
        """What its features are."""
        return About(self.extractor.recipe, self.extractor.shapes, self.source.origin)


def plan_of(job: Job, stored: Sequence[Shard], *, remember: Callable[[ById], None]) -> tuple[Plan, Contents]:
    """Plan what the cache lacks, once it is sure that the name fits the data; `remember` is called at Ctrl-C."""
    records, known = job.source.records, Known() if job.spec.rehash else _known(job)
    contents = find_contents(records, known, workers=job.spec.workers, progress=job.progress, remember=remember)
    entries = [Entry(record, content) for record, content in zip(records, contents.digests, strict=True)]
    if job.spec.only is None and job.spec.part is None:  # some of them say nothing of what the others are
        check_same_data(job.folder, job.source.origin, entries)
    return make_plan(entries, stored_contents(stored, but_failed=job.spec.retry_failed), job.shard_rows), contents


def _known(job: Job) -> Known:
    """Read what is known of the files without reading them: of the data set, and of a part of it beside that."""
    known = read_known(job.folder.parent / CONTENTS)
    return Known(known.by_id | read_known(job.contents).by_id) if job.spec.part else known


def remember(job: Job, by_id: ById) -> None:
    """Note which files were read, so that the next run need not; without room for it, it reads them again."""
    try:
        write_known(job.contents, by_id)
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


def fetch_relayed(job: Job) -> None:
    """Fetch by the relay, where there is one, the shards that it has and the cache lacks, and the golden rows."""
    if job.spec.engine.relay is None:
        return
    relay, key = Relay(job.spec.engine.relay, job.folder), job.extractor.recipe.key
    names = [name for name in relay.shards() if not (job.folder / SHARDS / name).exists()]
    with Arrivals(relay, job.folder, key) as arrivals:
        if names and not (job.folder / GOLDEN).exists():  # their rows were proven by these
            _refused(relay, GOLDEN, relay.fetch(GOLDEN, job.folder, key))
        job.progress.start("fetch", len(names))
        for name in names:
            arrivals.expect(name, [name])
        while arrivals.left:
            for name, why in arrivals.here(timeout_s=1.0):
                _refused(relay, name, why)
                job.progress.advance(1, bool(why))


def _refused(relay: Relay, name: str, why: str) -> None:
    if why:
        log.warning("%s/%s: %s. It is not used", relay.shown, name, why)


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


def run_plan(job: Job, plan: Plan, written: Callable[[str], None] = lambda _: None) -> list[Receipt]:
    """Compute the shards that are missing, and name each as it is `written`; raises Interrupted, saying what is kept.

    Raises ShardsFailed where some failed whatever was tried, once all others are written.
    """
    job.progress.start("extract", plan.computed)
    receipts: list[Receipt] = []
    stopped = True
    engine = engine_of(job.spec)(plan.shards, job.extractor, job.folder / SHARDS, job.spec, job.progress)
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(engine):
        try:
            for receipt in engine:
                receipts.append(receipt)
                written(receipt.name)
            stopped = False
        except KeyboardInterrupt as stop:  # at work here, it is news to the engine; from the engine, it has ended
            receipts.append(engine.throw(stop))
            receipts.extend(engine)
    if stopped:
        kept = plan.reused + sum(receipt.rows for receipt in receipts)
        raise Interrupted(
            f"interrupted: {kept:,} of {plan.reused + plan.computed:,} rows are kept",
            where=str(job.folder),
            remedy="Run the same command again: it goes on from there",
        )
    return receipts
