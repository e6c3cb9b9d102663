"""Runs of the command that are killed at random instants, again and again, until one gets done."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import h5py
import pytest

from extract.run import extract
from extract.store import open_features
from extract.store.whole import damage
from tests.tiny import assert_same_rows, rows_in, rows_of, tiny_folder, tiny_spec
from tests.warm import warm

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

IMAGES, SHARD_ROWS = 80, 4
ROOT = Path(__file__).parents[2]

# The command with small shards, in a process of its own, with the processes that decode for it. Behind so many rows it
# waits until its input ends, and a signal leaves it as long as it takes: a test that is slow finds it at work.
COMMAND = f"""
import os, sys
from extract import console, job
from extract.engines import local
import pipeline

job.SHARD_ROWS, console.GRACE_S = {SHARD_ROWS}, 600
real, left = local.write_shards, int(sys.argv.pop(1))

def write_shards(*given, on_rows, **known):
    def waits(rows, bad):
        global left
        on_rows(rows, bad)
        left -= rows
        if left <= 0:
            sys.stdin.readline()

    return real(*given, on_rows=waits, **known)

local.write_shards = write_shards
print(os.getpid(), flush=True)
pipeline.main(sys.argv[1:])
"""


@pytest.fixture
def data(tmp_path) -> Path:
    return tiny_folder(tmp_path / "pets", per_class=IMAGES // 2)


class Begun:
    """An extraction that waits behind so many shards and one more; its libraries are loaded."""

    def __init__(self, python: list[str], data: Path, cache: Path, *, shards: int) -> None:
        rows = str((shards + 1) * SHARD_ROWS + 1)  # a shard is handed over once there is a row that it has no room for
        options = ["-m", "builtin", "--weights", "none", "-j", "2", "-b", "2", "--device", "cpu", "--json"]
        command = [*python, "-c", COMMAND, rows, "extract", str(data), "--cache", str(cache), *options]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self._process.stdout
        self.pid = int(self._process.stdout.readline())

    @property
    def over(self) -> bool:
        return self._process.poll() is not None

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> tuple[str, int]:
        """Wait for its end: -> what it said, and its exit code."""
        said, _ = self._process.communicate(timeout=120)
        return said, self._process.returncode


Begin = Callable[..., Begun]


@pytest.fixture(scope="module")
def begun() -> Iterator[Begin]:
    """Starts extractions."""
    with warm(ROOT, "extract.run") as python:
        yield partial(Begun, python)


def stored(cache: Path) -> dict[Path, int]:
    """The rows of every shard that has its name; every byte of it is proven."""
    found = {path: rows_in(path) for path in cache.glob("pets/*/shards/*.h5")}
    assert not any(damage(path, "shard") for path in found)
    return found


def until(cache: Path, shards: int, process: Begun) -> None:
    """Wait until so many shards have their names, or the process has ended."""
    while len(list(cache.glob("pets/*/shards/*.h5"))) < shards and not process.over:
        time.sleep(0.005)


def test_a_run_killed_again_and_again_gets_done_and_loses_no_shard(begun, data, tmp_path):
    expected = rows_of(open_features("pets", _clean(data, tmp_path)))
    cache, chance = tmp_path / "cache", random.Random(0)
    kept: dict[Path, int] = {}
    deaths = 0
    while True:
        more = chance.randint(0, 5)
        process = begun(data, cache, shards=more)
        until(cache, len(kept) + more, process)
        time.sleep(chance.uniform(0, 0.05))
        process.send(signal.SIGKILL)
        said, code = process.end()
        now = stored(cache)
        assert kept.items() <= now.items()
        kept = now
        if code == 0:
            break
        deaths += 1
    assert deaths >= 3
    assert sum(kept.values()) == IMAGES, "each row was computed once"
    assert json.loads(said)["rows"] == IMAGES
    assert_same_rows(rows_of(open_features("pets", cache)), expected)
    for path in cache.rglob("*.h5"):
        if not path.name.startswith("."):
            with h5py.File(path, "r") as file:
                assert len(file)


def _clean(data: Path, tmp_path: Path) -> Path:
    extract(tiny_spec(data, tmp_path / "clean", taps=("penultimate",)))
    return tmp_path / "clean"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_rows_that_are_done_says_so_and_ends_the_run(begun, data, tmp_path, number, code):
    cache = tmp_path / "cache"
    process = begun(data, cache, shards=2)
    until(cache, 2, process)
    process.send(number)
    said, ended = process.end()
    assert ended == code
    error = json.loads(said)["error"]
    kept = sum(stored(cache).values())
    assert error["type"] == "Interrupted"
    assert error["what"] == f"interrupted: {kept} of {IMAGES} rows are kept"
    assert not list(cache.rglob(".tmp-*")) + list(cache.rglob("*.lock"))
    done = extract(tiny_spec(data, cache, taps=("penultimate",)))
    assert (done["computed"], done["reused"], done["bad"]) == (IMAGES - kept, kept, 0)


def test_whatever_the_run_is_at_a_signal_ends_it_and_a_second_one_at_once(begun, data, tmp_path):
    for i, wait_s in enumerate((0, 0.5)):
        process = begun(data, tmp_path / str(i), shards=IMAGES)
        time.sleep(wait_s)
        process.send(signal.SIGTERM)
        process.send(signal.SIGTERM)
        assert process.end()[1] in (143, 0, -signal.SIGTERM), "before it is heard, a signal ends any process"


def test_two_extractions_at_once_one_works_and_the_other_is_told_who_or_waits(begun, data, tmp_path):
    cache = tmp_path / "cache"
    first = begun(data, cache, shards=1)
    until(cache, 1, first)
    said, code = begun(data, cache, shards=IMAGES).end()
    assert code == 1
    assert f"process {first.pid} on" in json.loads(said)["error"]["what"]
    assert json.loads(first.end()[0])["computed"] == IMAGES
    assert sum(stored(cache).values()) == IMAGES
