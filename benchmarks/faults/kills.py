"""Kills and failing calls while a cache is written: nothing that was committed is lost, and the next run goes on."""

import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.harness import (
    Child,
    Numbers,
    Watch,
    clean_rows,
    command,
    extraction,
    fork,
    results,
    rows_at,
    same_rows,
    settled,
    shards_below,
    small_spec,
    spread,
    start,
    temporaries_below,
    warm,
    without_lock,
)
from extract import run
from extract.store import lock
from extract.store.housekeeping import collect_garbage
from extract.store.whole import damage
from tests.faults.storage import FULL, carry_out, errors, kills
from tests.tiny import features_of, put, rows_in, rows_of, tiny_folder

IMAGES, SHARD_ROWS = 6, 2
LONG_IMAGES = 24
WRITERS = 4
GRACE_S = 10.0
Case = dict[str, Any]


def _struck(data: Path, work: Path, faults: Iterable[Case], expected: Case, **known: str) -> list[Case]:
    """Carry out every fault upon an extraction of its own."""

    def carried_out(numbered: tuple[int, Case]) -> Case:
        number, fault = numbered
        cache = work / str(number)
        spec = small_spec(data, cache)
        done = carry_out(spec, {"cache": str(cache), "fault": fault, **known}, expected)
        shutil.rmtree(cache, ignore_errors=True)
        return {**fault, **done}

    return spread(carried_out, list(enumerate(faults)))


def _scene(folder: Path) -> tuple[Path, Case, list[str]]:
    """Make a data set of three shards: where it is, its rows, and the calls of a first run."""
    warm(SHARD_ROWS)
    data = settled(tiny_folder(folder / "pets", per_class=IMAGES // 2))
    expected = clean_rows(data, folder)
    [case] = _struck(data, folder / "count", [{}], expected)
    return data, expected, case["first"]["result"]["names"]


def _recovered(cases: Sequence[Case], images: int) -> Numbers:
    """Count what the second run found, and whether it got done with the right rows."""
    then = [case["then"].get("result") or {} for case in cases]
    done = [each for each in then if each and each["rows"] == each["computed"] + each["kept"] == images]
    return {
        "n": len(cases),
        "unreadable": sum(len(each.get("unreadable", ())) for each in then),
        "lost": sum(len(each.get("touched", ())) for each in then),
        "resumed": sum(not each["bad"] for each in done),
        "left_temporaries": sum(each.get("temporaries", 0) for each in then),
    }


def _every(faults: Iterable[Case], share: float) -> list[Case]:
    return list(faults)[:: round(1 / share)]


def crashpoints(folder: Path, share: float) -> Numbers:
    """Kill before, inside and after every call of a first run of three shards, and of one that adds an image."""
    data, expected, names = _scene(folder)
    first = _struck(data, folder / "first", _every(kills(names), share), expected)
    run.extract(small_spec(data, folder / "base"))
    put(data / "cat/new.png", 999)
    settled(data)
    shutil.rmtree(folder / "clean")
    grown, base = clean_rows(data, folder), str(folder / "base")
    [case] = _struck(data, folder / "count", [{}], grown, base=base)
    again = _every(kills(case["first"]["result"]["names"]), share)
    update = _struck(data, folder / "update", again, grown, base=base)
    counted = [_recovered(first, IMAGES), _recovered(update, IMAGES + 1)]
    total = {name: sum(part[name] for part in counted) for name in counted[0]}
    died = sum(case["first"]["code"] == -signal.SIGKILL for case in (*first, *update))
    passed = not total["unreadable"] and not total["lost"] and total["resumed"] == total["n"] == died
    return {**total, "died": died, "passed": passed}


def ioerror(folder: Path, share: float) -> Numbers:
    """Let every call of a first run fail once with EIO; and from it on with a full disk, quota or file size."""
    data, expected, names = _scene(folder)
    cases = _struck(data, folder / "cases", _every(errors(names, FULL), share), expected)
    ends = [case["first"] for case in cases]
    ours = [str(end.get("error")) for end in ends if str(end.get("error")).startswith("extract.errors.StoreError: ")]
    counted = _recovered(cases, IMAGES) | {
        "went_on": sum(end["code"] == 0 for end in ends),
        "errors_of_ours": len(ours),
        "naming_the_path": sum(str(folder) in said for said in ours),
        "died": sum(end["code"] < 0 for end in ends),
    }
    whole = not counted["unreadable"] and not counted["lost"] and counted["resumed"] == counted["n"]
    told = counted["went_on"] + counted["errors_of_ours"] == counted["n"]
    return {**counted, "passed": whole and told and len(ours) == counted["naming_the_path"]}


def sigkill(folder: Path, n: int) -> Numbers:
    """Four writers of one cache, killed at random and replaced, until the cache is done; caches until n kills.

    Every other cache is written without the lock, all four at once.
    """
    warm(SHARD_ROWS)
    lock.POLL_S = 0.01
    data = tiny_folder(folder / "pets", per_class=LONG_IMAGES // 2)
    expected = clean_rows(data, folder)
    counted = {"n": 0, "caches": 0, "shards": 0, "lost": 0, "bad": 0, "right": 0, "left_temporaries": 0}
    while counted["n"] < n:
        cache = folder / str(counted["caches"])
        watch = Watch(cache)
        counted["n"] += _kill_until_done(data, watch, counted["caches"], n - counted["n"])
        counted["left_temporaries"] += temporaries_below(cache)
        [index] = results(start(lambda cache=cache: run.extract(small_spec(data, cache))["path"]))
        watch.look()
        counted["right"] += same_rows(rows_at(Path(index)), expected)
        for name, value in (("caches", 1), ("shards", len(watch.seen)), ("lost", watch.lost), ("bad", watch.bad)):
            counted[name] += value
        shutil.rmtree(cache)
    passed = not counted["lost"] and not counted["bad"] and counted["right"] == counted["caches"]
    return {**counted, "passed": passed}


def _kill_until_done(data: Path, watch: Watch, seed: int, most: int) -> int:
    """Keep four writers at it and kill one after the other until one gets done: the number of kills."""

    def write(_: int) -> int:
        if seed % 2:
            without_lock()
        run.extract(small_spec(data, watch.cache, wait=True))
        return 0

    chance, deaths = np.random.default_rng(seed), 0
    writers = [fork(write) for _ in range(WRITERS)]
    while deaths < most and not any(writer.ended() for writer in writers):
        time.sleep(chance.uniform(0, 0.2))
        victim = writers.pop(int(chance.integers(WRITERS)))
        deaths += _killed(victim)
        watch.look()
        writers.append(fork(write))
    return deaths + sum(_killed(writer) for writer in writers)


def _killed(child: Child) -> bool:
    """Kill a child, and tell whether that was what ended it."""
    child.kill()
    return child.answer()[0] == -signal.SIGKILL


def sigterm(folder: Path, n: int) -> Numbers:
    """Send SIGTERM to the command at random instants; what it says it kept is there, and computed by nobody again."""
    warm(SHARD_ROWS, decode_here=False)
    data = tiny_folder(folder / "pets", per_class=LONG_IMAGES // 2)
    expected, began = clean_rows(data, folder), time.perf_counter()
    run.extract(small_spec(data, folder / "timed"))
    instants = np.random.default_rng(0).uniform(0.02, time.perf_counter() - began, n).tolist()
    cases = spread(lambda after: _terminated(data, folder / f"{after}", expected, after), instants)
    ends = Counter(case["ended"] for case in cases)
    counted = {
        "n": n,
        "code_143": ends["in order"],
        "done_already": ends["done"],
        "longest_s": round(max(case["s"] for case in cases), 2),
        "rows_computed_again": sum(case["again"] for case in cases),
        "said_otherwise": sum(case["told"] not in (None, case["kept"]) for case in cases),
        "left_temporaries": sum(case["left"] for case in cases),
        "right": sum(case["right"] for case in cases),
    }
    ended = counted["code_143"] + counted["done_already"] == counted["right"] == n
    nothing = ("rows_computed_again", "said_otherwise", "left_temporaries")
    return {**counted, "passed": ended and counted["longest_s"] <= GRACE_S and not any(counted[k] for k in nothing)}


def _terminated(data: Path, cache: Path, expected: Case, after_s: float) -> Case:
    """Start the command and end it after so many seconds, and let a second run go on from there."""
    child = command([*extraction(data, cache), "--json"])
    time.sleep(after_s)
    began = time.perf_counter()
    child.kill(signal.SIGTERM)
    code, said = child.answer()
    took, kept, left = time.perf_counter() - began, sum(map(rows_in, shards_below(cache))), temporaries_below(cache)
    done = run.extract(small_spec(data, cache))
    right = same_rows(rows_of(features_of(done)), expected)
    shutil.rmtree(cache)
    again = kept + done["computed"] - LONG_IMAGES
    ended = "in order" if code == 128 + signal.SIGTERM else "done" if '"stages"' in said else "otherwise"
    return {"ended": ended, "s": took, "kept": kept, "told": _told(said), "left": left, "again": again, "right": right}


def _told(said: str) -> int | None:
    """Read how many rows an interrupted command says that it kept; None where it says nothing of rows."""
    line = said.splitlines()[-1]
    what = json.loads(line).get("error", {}).get("what", "") if line.startswith("{") else ""
    return int(what.split()[1].replace(",", "")) if what.startswith("interrupted: ") else None


def gc(folder: Path, n: int) -> Numbers:
    """Four writers bring their data sets up to date and are killed, while `cache gc --delete` runs all the time."""
    warm(SHARD_ROWS)
    cache, chance, stop = folder / "cache", np.random.default_rng(0), folder / "stop"
    sets = [tiny_folder(folder / f"set{i}", per_class=IMAGES // 2, seed=1000 * i) for i in range(WRITERS)]
    for data in sets:
        run.extract(small_spec(data, cache))
    collector = start(lambda: _collect(cache, stop))
    writers: dict[Path, Child] = {}
    deaths, damaged = 0, 0
    while deaths < n:
        data = sets[int(chance.integers(WRITERS))]
        if writer := writers.pop(data, None):
            deaths += _killed(writer)
            damaged += not _holds(cache, data)
        _turn_over(data, int(chance.integers(1 << 30)))
        writers[data] = fork(lambda _, data=data: int(not run.extract(small_spec(data, cache, wait=True))))
        time.sleep(chance.uniform(0, 0.15))
    deaths += sum(map(_killed, writers.values()))
    stop.touch()
    [(rounds, deleted, failed)] = results(collector)
    left = temporaries_below(cache)
    wrong = 0
    for data in sets:
        done = run.extract(small_spec(data, cache))
        expected = run.extract(small_spec(data, folder / "expected"))
        wrong += not same_rows(rows_of(features_of(done)), rows_of(features_of(expected)))
    collect_garbage((), cache, delete=True)
    after = temporaries_below(cache) + sum(damage(path, "shard") is not None for path in shards_below(cache))
    counted = {"n": deaths, "rounds_of_gc": rounds, "deleted": deleted, "gc_failed": failed, "sets_damaged": damaged}
    counted |= {"sets_wrong": wrong, "temporaries_before": left, "temporaries_after": after}
    bad = ("gc_failed", "sets_damaged", "sets_wrong", "temporaries_after")
    return {**counted, "passed": deleted > 0 and not any(counted[name] for name in bad)}


def _collect(cache: Path, stop: Path) -> tuple[int, int, int]:
    """Collect garbage until told to stop: rounds, files deleted, rounds that raised."""
    rounds = deleted = failed = 0
    while not stop.exists():
        rounds += 1
        try:
            found = collect_garbage((), cache, delete=True, unfinished=rounds % 5 == 0)
        except OSError:
            failed += 1
            continue
        deleted += sum(item["delete"] for item in found["items"])
    return rounds, deleted, failed


def _holds(cache: Path, data: Path) -> bool:
    """Tell whether the index of a data set, of which nobody writes now, has all its rows."""
    [index] = cache.glob(f"{data.name}/*/features.h5")
    return all(np.isfinite(row).all() for row in rows_at(index).values())


def _turn_over(data: Path, seed: int) -> None:
    """Take one image away and put two others there; the oldest go where there are many."""
    there = sorted(data.glob("*/*"), key=lambda path: path.stat().st_mtime_ns)
    for path in there[: max(1, len(there) - IMAGES)]:
        path.unlink()
    for i in range(2):
        put(data / ("cat", "dog")[i] / f"{seed}-{i}.png", seed + i)
