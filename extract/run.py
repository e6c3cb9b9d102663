"""The story of `extract`: source -> plan, only what the cache lacks -> engine -> index -> feature set."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from extract.commit import Commits
from extract.engines import probe
from extract.errors import ShardsFailed
from extract.forward import build_extractor
from extract.job import Job, check_room, fetch_relayed, plan_of, prepare_folder, remember, run_plan
from extract.part import compute_part, part_of
from extract.plan import Plan, check_still_there, explain_miss, opened, stored_shards
from extract.progress import Progress, Silent
from extract.record import Failure, Status
from extract.shard import Receipt
from extract.sources import Source, open_source
from extract.spec import ExtractSpec
from extract.store import files
from extract.store.index import Table
from extract.store.lock import held, lock_of
from extract.store.reader import INDEX, KEY_DIGITS, SHARDS
from extract.store.shards import Shard
from extract.verdict import judge

ESTIMATED_HERE = "the time is that of this machine by itself: actors of Ray share the work, and may have other devices"


def extract(spec: ExtractSpec, progress: Progress | None = None) -> dict[str, Any]:
    """Bring the features of a data set up to date and return the summary that `--json` prints.

    Of a part, its rows are computed and nothing more. Raises an OffshelfError where the source, the backbone or the
    cache is not usable, ShardsFailed where shards failed and all others are done, and Interrupted where Ctrl-C ended
    it; images that are not usable become rows with a reason.
    """
    began = time.perf_counter()
    job = open_job(spec, progress or Silent())
    done = compute_part(job, spec.part) if spec.part else _compute_all(job)
    return done | {"seconds": round(time.perf_counter() - began, 3)}


def _compute_all(job: Job) -> dict[str, Any]:
    spec = job.spec
    with held(lock_of(job.folder), wait=spec.wait, on_wait=job.progress.note):
        miss = explain_miss(job.folder, job.extractor.recipe)
        if miss and spec.only is None:  # some of the images are for a question, and not for who types the name
            job.progress.note(f"new features: {miss['nearest']} differs in: {'; '.join(miss['differs_in'])}")
        fetch_relayed(job)
        stored, damaged = stored_shards(job.folder / SHARDS, job.extractor.recipe.key, thorough=spec.rehash)
        plan, contents = plan_of(job, stored, remember=lambda by_id: remember(job, by_id))
        before = opened(job.folder / INDEX)
        check_still_there(before, plan.entries)
        if contents.changed:
            remember(job, contents.known)
        check_room(job, plan)
        prepare_folder(job, prove=spec.rehash or plan.computed > 0)
        receipts, table = compute(job, plan, stored)
        made = {receipt.name for receipt in receipts}
        files.remove([path for path in damaged if path.name not in made])
    return summary(job, plan, receipts, table, set(before.ids) if before else set()) | {"miss": miss}


def dry_run(spec: ExtractSpec, progress: Progress | None = None) -> dict[str, Any]:
    """Say what `extract` would do: rows, what of it is there, the bytes to write, and about how long it will take.

    Computes some of the rows here to tell the time, whatever the engine, and writes nothing.
    """
    job = part_of(open_job(spec, progress or Silent()))
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
        "notes": [*job.source.notes, *_told_of_estimate(job, plan)],
    }


def _told_of_estimate(job: Job, plan: Plan) -> list[str]:
    """Say, and return, what the time does not tell: of actors nothing is known before they are there."""
    if job.spec.engine.name == "local" or not plan.computed:
        return []
    job.progress.note(ESTIMATED_HERE)
    return [ESTIMATED_HERE]


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


def compute(job: Job, plan: Plan, stored: Sequence[Shard]) -> tuple[list[Receipt], Table]:
    """Compute the shards that are missing, and write the index over them and those that were there.

    Where shards failed, the index says so of their images, and ShardsFailed is raised.
    """
    commits = Commits(job.folder, job.about, plan.entries, stored)
    try:
        receipts = run_plan(job, plan, commits.add)
    except ShardsFailed as error:
        commits.write(_reasons(plan, error))
        raise
    return receipts, commits.write()


def _reasons(plan: Plan, error: ShardsFailed) -> Mapping[bytes | Failure, Failure]:
    """Say of the contents of shards that failed why they did: the next run computes them again."""
    why = {r.id: Failure(Status.KILLED, reason) for number, reason in error.failed for r in plan.shards[number]}
    return {entry.content: why[entry.record.id] for entry in plan.entries if entry.record.id in why}


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
