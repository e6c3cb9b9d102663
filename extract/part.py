"""One part of an extraction, for sites whose scheduler starts many processes: its rows, and what their index needs.

Parts know nothing of each other: part K of N is a slice of all images, whatever the cache holds. `extract.commit` makes
the index when they are done.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from extract.errors import OptionError
from extract.job import Job, check_room, fetch_relayed, plan_of, prepare_folder, remember, run_plan
from extract.plan import Plan, stored_shards
from extract.record import Failure
from extract.shard import Receipt
from extract.store import files
from extract.store.listing import MAX_PARTS, slice_of, write_listing, write_part
from extract.store.lock import held, lock_of
from extract.store.reader import SHARDS
from extract.verdict import judge


def part_of(job: Job) -> Job:
    """Return an extraction with the images of its part alone, where it is one; OptionError for too many parts."""
    if job.spec.part is None:
        return job
    if job.spec.part[1] > MAX_PARTS:
        raise OptionError(f"{job.spec.part[1]:,} parts", remedy=f"Take {MAX_PARTS:,} at most: --part K/N")
    rows = slice_of(job.spec.part, len(job.source.records))
    return replace(job, source=replace(job.source, records=job.source.records[rows.start : rows.stop]))


def compute_part(whole: Job, part: tuple[int, int]) -> dict[str, Any]:
    """Compute the rows of a part that the cache lacks, and return the summary that `--json` prints.

    Other parts may be at work on the same folder; an extraction, a commit and a sweep may not.
    """
    job = part_of(whole)
    with held(lock_of(job.folder), wait=job.spec.wait, on_wait=job.progress.note, shared=True):
        fetch_relayed(job)
        stored, _ = stored_shards(job.folder / SHARDS, job.extractor.recipe.key, thorough=job.spec.rehash)
        plan, contents = plan_of(job, stored, remember=lambda by_id: remember(job, by_id))
        check_room(job, plan)
        prepare_folder(job, prove=job.spec.rehash or plan.computed > 0)
        listing = write_listing(job.folder, job.about, whole.source.records)
        path = write_part(job.folder, part, listing, contents.digests)
        remember(job, contents.known)
        receipts = run_plan(job, plan)
    return {"part": f"{part[0]}/{part[1]}", **_summary(job, plan, receipts), "path": str(path)}


def _summary(job: Job, plan: Plan, receipts: Sequence[Receipt]) -> dict[str, Any]:
    """Sum up a part for people and scripts: as of a whole extraction, but for what only the index tells."""
    unreadable = sum(isinstance(entry.content, Failure) for entry in plan.entries)
    return {
        "features": job.name,
        "key": job.extractor.recipe.key,
        "rows": len(plan.entries),
        "computed": plan.computed,
        "reused": plan.reused,
        "duplicates": plan.duplicates,
        "bad": unreadable + sum(receipt.bad for receipt in receipts),
        "bytes": files.bytes_in(job.folder),
        **judge(receipts, job.spec, job.extractor.recipe),
        "notes": list(job.source.notes),
    }
