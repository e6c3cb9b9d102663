"""Disks whose power is cut, and disks that get full."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.harness import (
    Child,
    Numbers,
    Watch,
    command,
    extraction,
    fork,
    rows_at,
    same_rows,
    shards_below,
    small_spec,
    temporaries_below,
    warm,
)
from benchmarks.faults.mounts import PowerCut, grow, memory_disk
from extract import job, run
from extract.errors import StoreError
from extract.store.index import write_index
from extract.store.shards import read_shard, write_shard
from extract.store.whole import damage
from tests.extract.store.test_reader import RECIPE, SHAPES, entry, shard_of
from tests.faults import test_full_disk
from tests.tiny import features_of, rows_in, rows_of, tiny_folder

PER_SHARD, MOST_SHARDS = 4, 60
WIDE = ("layer1:flatten", "penultimate")
"""About 130 kB an image."""

WIDE_IMAGES, WIDE_ROWS = 56, 8
DISK_BYTES, ROOMY_BYTES = 6 << 20, 64 << 20
Rows = dict[str, np.ndarray]


def powercut(folder: Path, n: int) -> Numbers:
    """Cut the power under a writer of shards and indexes; what it was told is committed is there after the restart."""
    disk, chance = PowerCut(folder), np.random.default_rng(0)
    counted = {"n": n, "acked_shards": 0, "acked_indexes": 0, "lost": 0, "bad": 0, "indexes_lost": 0}
    for _ in range(n):
        for name, value in _after_cut(disk, chance.uniform(0, 0.3), _write_on).items():
            counted[name] += value
    control = [_after_cut(disk, chance.uniform(0.1, 0.3), _write_without_sync) for _ in range(max(2, n // 20))]
    unsynced = {f"{name}_without_fsync": sum(each[name] for each in control) for name in ("acked_shards", "lost")}
    whole = not (counted["lost"] or counted["bad"] or counted["indexes_lost"])
    return {**counted, **unsynced, "passed": whole and unsynced["lost_without_fsync"] > 0}


def _after_cut(disk: PowerCut, after_s: float, write: Callable[[Path, int], int]) -> Numbers:
    """Let a writer begin, cut the power so long after its first word, and see what is there after a restart."""
    disk.mount()
    try:
        folder = disk.at / "set" / RECIPE.key[:12]
        shutil.rmtree(disk.at / "set", ignore_errors=True)
        os.sync()
        writer = fork(lambda pipe: write(folder, pipe))
        time.sleep(0.02 + after_s)
        disk.cut()
        acked = _last_words(writer)
        disk.unmount()
        disk.mount()
        return _survived(folder, acked)
    finally:
        disk.unmount()


def _last_words(writer: Child) -> list[str]:
    """Kill a writer and return what it has acknowledged, word by word."""
    writer.kill()
    return writer.answer()[1].split()


def _write_on(folder: Path, pipe: int) -> int:
    """Write and acknowledge until the power is cut."""
    with suppress(StoreError):
        _write_and_tell(folder, pipe)
    time.sleep(60)
    return 0


def _write_and_tell(folder: Path, pipe: int) -> None:
    """Write shards of four rows, and after every third one an index of all rows; acknowledge each."""
    names: list[str] = []
    while len(names) < MOST_SHARDS:
        first = PER_SHARD * len(names)
        names.append(write_shard(folder / "shards", shard_of(list(range(first, first + PER_SHARD))), RECIPE.key))
        os.write(pipe, f"{names[-1]} ".encode())
        if len(names) % 3 == 0:
            shards = [read_shard(folder / "shards" / name, RECIPE.key) for name in names]
            entries = [entry(i) for i in range(PER_SHARD * len(names))]
            write_index(folder / "features.h5", RECIPE, entries, shards, SHAPES, "/data")
            os.write(pipe, f"{PER_SHARD * len(names)} ".encode())


def _write_without_sync(folder: Path, pipe: int) -> int:
    """Do the same and never wait for the disk: it shows that the power is really cut."""
    os.fsync = lambda _: None
    return _write_on(folder, pipe)


def _survived(folder: Path, acked: Sequence[str]) -> Numbers:
    """Compare what a disk holds with what was acknowledged."""
    shards, indexes = [word for word in acked if not word.isdigit()], [int(word) for word in acked if word.isdigit()]
    there = {path.name: damage(path, "shard") is None for path in (folder / "shards").glob("*.h5")}
    rows = 0
    if (folder / "features.h5").exists():
        found = rows_at(folder / "features.h5")
        right = all((row == int(name.removesuffix(".png"))).all() for name, row in found.items())
        rows = len(found) if right else 0
    return {
        "acked_shards": len(shards),
        "acked_indexes": len(indexes),
        "lost": sum(not there.get(name) for name in shards),
        "bad": sum(not whole for whole in there.values()),
        "indexes_lost": int(rows < max(indexes, default=0)),
    }


def diskfull(folder: Path, n: int) -> Numbers:
    """Fill small disks with the command: exit code 1 and one line, and the next run goes on once there is room.

    Half of the disks are file systems of memory of up to 6 MB; on the others no file may grow beyond a limit.
    """
    warm(WIDE_ROWS)
    run.check_room = lambda *_: None  # or nothing would be begun there
    data = tiny_folder(folder / "pets", per_class=WIDE_IMAGES // 2)
    expected = rows_of(features_of(run.extract(small_spec(data, folder / "clean", taps=WIDE))), WIDE[0])
    rooms = np.linspace(DISK_BYTES, DISK_BYTES / 40, n // 2).astype(int).tolist()
    ends = [_filled(data, folder / f"disk{i}", n_bytes, expected) for i, n_bytes in enumerate(rooms)]
    ends += _limited(folder, n - len(rooms))
    counted = {name: sum(end[name] for end in ends) for name in ends[0]}
    passed = all(counted[name] == n for name in ("code_1", "one_line", "right")) and not counted["shards_lost"]
    return {"n": n, **counted, "passed": passed}


def _filled(data: Path, disk: Path, n_bytes: int, expected: Rows) -> Numbers:
    """Fill one disk, give it room, and go on."""
    with memory_disk(disk, n_bytes):
        layers = [option for tap in WIDE for option in ("--layer", tap)]
        code, said = command([*extraction(data, disk / "cache"), *layers]).answer()
        grow_to = partial(grow, disk, ROOMY_BYTES)
        return _gone_on(data, disk / "cache", code, said.removeprefix("begun\n"), grow_to, expected, taps=WIDE)


def _gone_on(
    data: Path, cache: Path, code: int, said: str, make_room: Callable[[], None], expected: Rows, **known: Any
) -> Numbers:
    """See what a run without room has left, make room, and run again."""
    left, kept, watch = temporaries_below(cache), sum(map(rows_in, shards_below(cache))), Watch(cache)
    watch.look()
    make_room()
    spec = small_spec(data, cache, **known)
    done = run.extract(spec)
    watch.look()
    right = same_rows(rows_of(features_of(done), spec.taps[0]), expected)
    return {
        "code_1": code == 1,
        "one_line": _is_one_line(said),
        "shards_lost": watch.lost + watch.bad,
        "left_temporaries": left,
        "rows_kept": kept,
        "right": right and done["computed"] == len(expected) - kept,
    }


def _is_one_line(said: str) -> bool:
    lines = [line for line in said.splitlines() if not line.startswith("Warning: ")]
    return len(lines) == 1 and lines[0].startswith("Error: ") and "Make room" in lines[0]


def _limited(folder: Path, n: int) -> list[Numbers]:
    """Do the same where the system takes no file beyond a thousand bytes, from several moments on."""
    job.SHARD_ROWS = test_full_disk.SHARD_ROWS
    data = tiny_folder(folder / "limited", per_class=test_full_disk.IMAGES // 2)
    spec = small_spec(data, folder / "limited-clean")
    moments = [("weights", 0), ("index", 0), *(("shard", shards) for shards in range(5))]
    cases = [(folder / f"limited{i}", *moments[i % len(moments)]) for i in range(n)]
    said = test_full_disk.on_full_disks(spec, cases)
    expected = rows_of(features_of(run.extract(spec)))
    outcomes = zip(cases, said, strict=True)
    return [_gone_on(data, cache, 1, text, lambda: None, expected) for (cache, *_), text in outcomes]
