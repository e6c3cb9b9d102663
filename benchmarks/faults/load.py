"""Many at once, and very much: racing writers and readers, a million rows, minibatches at random."""

import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.harness import (
    Child,
    Numbers,
    Watch,
    fork,
    most_megabytes,
    results,
    small_spec,
    start,
    temporaries_below,
    warm,
)
from extract import contents, run
from extract.plan import make_plan, stored_contents, stored_shards
from extract.recipe import Tap
from extract.record import Record
from extract.store import FeatureSet
from extract.store.index import Entry, write_index
from extract.store.shards import Rows, Shard, read_shard, write_shard
from tests.extract.store.test_reader import RECIPE, SHAPES
from tests.tiny import put

WRITERS, READERS, SHARDS, PER_SHARD = 8, 2, 400, 4
MOST_IN_INDEX = 100
SHARD_ROWS = 1024
PICTURES = 100
BATCH, ROWS, WIDTH = 256, 20_000, 2048
SECONDS_PER_MILLION = {"scan": 1, "index": 6}
"""A tenth of the goals for ten million rows."""


def _content(i: int) -> bytes:
    return (i + 1).to_bytes(32, "big")  # 32 times zero would stand for no content


def numbered(first: int, n: int, shapes: dict[str, tuple[int, ...]] = SHAPES, store: str = "float32") -> Rows:
    """Rows whose every value tells their number."""
    values = np.arange(first, first + n) % 1000
    digests = np.zeros((n, 4), ">u8")
    digests[:, 3] = np.arange(first, first + n) + 1
    layers = {tap: np.repeat(values[:, None], width, 1).astype(store) for tap, (width,) in shapes.items()}
    return Rows(layers, digests.view(np.uint8), [None] * n)


def _entry(i: int) -> Entry:
    return Entry(Record(f"{i}.png", f"/data/{i}.png", label=f"class {i % 10}"), _content(i))


def _publish(folder: Path, shards: Sequence[Shard], numbers: Sequence[int]) -> None:
    write_index(folder / "features.h5", RECIPE, [_entry(i) for i in numbers], shards, SHAPES, "/data")


def race(folder: Path, n: int) -> Numbers:
    """Let eight processes write the same shards, while an index over them changes and two others read all of it."""
    at, cache = folder / "cache" / "set" / RECIPE.key[:12], folder / "cache"
    names = [write_shard(at / "shards", numbered(0, PER_SHARD), RECIPE.key)]
    _publish(at, [read_shard(at / "shards" / names[0], RECIPE.key)], range(PER_SHARD))
    writers = [fork(lambda _, seed=seed: _write_all(at, seed)) for seed in range(WRITERS)]
    updater = start(lambda: _update(at, cache, folder / "stop"))
    readers = [start(lambda: _read_often(at / "features.h5", n)) for _ in range(READERS)]
    failed = sum(_code(writer) != 0 for writer in writers)
    read = results(*readers)
    (folder / "stop").touch()
    [(updates, lost, bad, shards)] = results(updater)
    counted = {"n": n * READERS, "writers_failed": failed, "shards": shards, "overwritten": lost, "bad": bad}
    counted |= {"indexes": updates, "reads_failed": sum(errors for errors, _ in read)}
    counted |= {"rows_read": sum(rows for _, rows in read), "left_temporaries": temporaries_below(cache)}
    bad_signs = ("writers_failed", "overwritten", "bad", "reads_failed", "left_temporaries")
    return {**counted, "passed": shards == SHARDS and not any(counted[name] for name in bad_signs)}


def _code(child: Child) -> int:
    return child.answer()[0]


def _write_all(at: Path, seed: int) -> int:
    for number in np.random.default_rng(seed).permutation(SHARDS).tolist():
        write_shard(at / "shards", numbered(PER_SHARD * number, PER_SHARD), RECIPE.key)
    return 0


def _update(at: Path, cache: Path, stop: Path) -> tuple[int, int, int, int]:
    """Replace the index until told to stop: how often; and shards that changed, that are bad, and all of them."""
    chance, known, watch, updates = np.random.default_rng(99), dict[Path, tuple[int, Shard]](), Watch(cache), 0
    while not stop.exists():
        watch.look()
        for path in watch.seen.keys() - known.keys():
            shard = read_shard(path, RECIPE.key)
            known[path] = int.from_bytes(shard.digests[0].tobytes(), "big") - 1, shard
        there = list(known.values())
        chosen = [there[i] for i in chance.permutation(len(there))[:MOST_IN_INDEX]]
        rows = [first + i for first, _ in chosen for i in range(PER_SHARD)]
        _publish(at, [shard for _, shard in chosen], rows)
        updates += 1
    watch.look()
    return updates, watch.lost, watch.bad, len(watch.seen)


def _read_often(index: Path, n: int) -> tuple[int, int]:
    """Open an index and read all of it, n times: errors and wrong rows, and rows read."""
    errors = rows = 0
    for _ in range(n):
        try:
            with FeatureSet(index).check() as features:
                expected = np.array([int(name.removesuffix(".png")) % 1000 for name in features.ids], np.float32)
                got = [features.read(layer) for layer in features.layers]
        except Exception:
            errors += 1
            continue
        errors += not all((values == expected[:, None]).all() for values in got)
        rows += len(expected)
    return errors, rows


def _timed(times: Numbers, name: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    done = work()
    times[f"{name}_s"] = round(time.perf_counter() - began, 2)
    return done


def scale(folder: Path, n: int) -> Numbers:
    """Scan, index and open many synthetic rows; and run an extraction again whose files are all as they were."""
    at = folder / "cache" / "set" / RECIPE.key[:12]
    for first in range(0, n, SHARD_ROWS):
        write_shard(at / "shards", numbered(first, min(SHARD_ROWS, n - first)), RECIPE.key)
    [rows] = results(start(lambda: _scanned(at, n)))
    [files] = results(start(lambda: _idle(folder / "files", n // 10)))
    fast = all(rows[f"{name}_s"] <= most * n / 1e6 for name, most in SECONDS_PER_MILLION.items())
    passed = fast and rows["mb"] <= 1024 and rows["to_compute"] == files["files_read"] == files["computed"] == 0
    return {"n": n, **rows, **files, "passed": passed}


def _scanned(at: Path, n: int) -> Numbers:
    """Find out what is stored, plan, write the index and open it."""
    times: Numbers = {"mb_before": round(most_megabytes())}

    def scan() -> tuple[list[Shard], Collection[bytes]]:
        shards, _ = stored_shards(at / "shards", RECIPE.key, thorough=False)
        return shards, stored_contents(shards, but_failed=False)

    shards, contents = _timed(times, "scan", scan)
    times["mb_after_scan"] = round(most_megabytes())
    entries = [_entry(i) for i in range(n)]
    plan = _timed(times, "plan", lambda: make_plan(entries, contents, SHARD_ROWS))
    _timed(times, "index", lambda: write_index(at / "features.h5", RECIPE, entries, shards, SHAPES, "/data"))
    opened = _timed(times, "open", lambda: FeatureSet(at / "features.h5").check())
    found = {"shards": len(shards), "to_compute": plan.computed, "opened_rows": len(opened)}
    return {**found, **times, "mb": round(most_megabytes())}


def _idle(data: Path, n: int) -> Numbers:
    """Extract many files, some of them equal, twice; count what the second run reads."""
    warm(SHARD_ROWS)
    pictures = [put(data.with_name("pictures") / f"{i}.png", i).read_bytes() for i in range(PICTURES)]
    for i in range(n):
        path = data / f"{i % 100:02}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[i % PICTURES])
    time.sleep(1)
    spec = small_spec(data, data.with_name("idle"), batch_size=32)
    run.extract(spec)
    reads, real = 0, contents.read_bytes

    def counting(*given: Any) -> Any:
        nonlocal reads
        reads += 1
        return real(*given)

    contents.read_bytes = counting
    times: Numbers = {}
    done = _timed(times, "idle_run", lambda: run.extract(spec))
    shutil.rmtree(data)
    return {"files": done["rows"], **times, "files_read": reads, "computed": done["computed"]}


def minibatch(folder: Path, n: int) -> Numbers:
    """Read random minibatches of wide rows from the shards, and the same rows from an array in memory."""
    counted: Numbers = {"n": n, "rows": ROWS, "width": WIDTH, "batch": BATCH}
    for store in ("float32", "float16"):
        recipe = replace(RECIPE, taps=(Tap("penultimate"),), nodes=("b",), store=store)
        at, shapes = folder / "cache" / "set" / recipe.key[:12], {"penultimate": (WIDTH,)}
        starts = range(0, ROWS, SHARD_ROWS)
        rows = [numbered(first, min(SHARD_ROWS, ROWS - first), shapes, store) for first in starts]
        names = [write_shard(at / "shards", each, recipe.key) for each in rows]
        shards = [read_shard(at / "shards" / name, recipe.key) for name in names]
        write_index(at / "features.h5", recipe, [_entry(i) for i in range(ROWS)], shards, shapes, "/data")
        in_memory = np.concatenate([each.layers["penultimate"] for each in rows])
        features = FeatureSet(at / "features.h5")
        assert (features.read("penultimate") == in_memory).all()
        counted[f"{store}_ms"] = _median_ms(lambda some: features.read("penultimate", some), n)  # noqa: B023 used here
        counted[f"{store}_ms_from_memory"] = _median_ms(lambda some: in_memory[some].astype(np.float32), n)  # noqa: B023
    slower = max(counted[f"{store}_ms"] / counted[f"{store}_ms_from_memory"] for store in ("float32", "float16"))
    return {**counted, "times_slower": round(slower, 2), "passed": slower <= 3}


def _median_ms(read: Callable[[np.ndarray], np.ndarray], n: int) -> float:
    chance, seconds = np.random.default_rng(0), []
    for _ in range(n):
        some = chance.integers(ROWS, size=BATCH)
        began = time.perf_counter()
        read(some)
        seconds.append(time.perf_counter() - began)
    return round(1000 * float(np.median(seconds)), 3)
