"""Runs of the command that are killed at random instants, again and again, until one gets done."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from extract.run import extract
from extract.store import open_features
from extract.store.whole import damage
from tests.tiny import assert_same_rows, rows_in, rows_of, tiny_folder, tiny_spec

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

IMAGES, SHARD_ROWS = 80, 4
ROOT = Path(__file__).parents[2]

# The command with small shards, as a process of its own, with the processes that decode for it.
COMMAND = f"""
import sys
from extract import job
import pipeline
job.SHARD_ROWS = {SHARD_ROWS}
print("begun", flush=True)
pipeline.main(sys.argv[1:])
"""


@pytest.fixture
def data(tmp_path) -> Path:
    return tiny_folder(tmp_path / "pets", per_class=IMAGES // 2)


def begun(data: Path, cache: Path) -> subprocess.Popen[str]:
    """Start an extraction, and wait until its libraries are loaded."""
    options = ["-m", "builtin", "--weights", "none", "-j", "2", "-b", "2", "--device", "cpu", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "extract", str(data), "--cache", str(cache), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    return process


def stored(cache: Path) -> dict[Path, int]:
    """The rows of every shard that has its name; every byte of it is proven."""
    found = {path: rows_in(path) for path in cache.glob("pets/*/shards/*.h5")}
    assert not any(damage(path, "shard") for path in found)
    return found


def until(cache: Path, shards: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many shards have their names, or the process has ended."""
    while len(list(cache.glob("pets/*/shards/*.h5"))) < shards and process.poll() is None:
        time.sleep(0.005)


def test_a_run_killed_again_and_again_gets_done_and_loses_no_shard(data, tmp_path):
    expected = rows_of(open_features("pets", _clean(data, tmp_path)))
    cache, chance = tmp_path / "cache", random.Random(0)
    kept: dict[Path, int] = {}
    deaths = 0
    while True:
        process = begun(data, cache)
        until(cache, len(kept) + chance.randint(0, 5), process)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        said, _ = process.communicate()
        now = stored(cache)
        assert kept.items() <= now.items()
        kept = now
        if process.returncode == 0:
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
def test_a_signal_keeps_the_rows_that_are_done_says_so_and_ends_the_run(data, tmp_path, number, code):
    cache = tmp_path / "cache"
    process = begun(data, cache)
    until(cache, 2, process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code
    error = json.loads(said)["error"]
    kept = sum(stored(cache).values())
    assert error["type"] == "Interrupted"
    assert error["what"] == f"interrupted: {kept} of {IMAGES} rows are kept"
    assert not list(cache.rglob(".tmp-*")) + list(cache.rglob("*.lock"))
    done = extract(tiny_spec(data, cache, taps=("penultimate",)))
    assert (done["computed"], done["reused"], done["bad"]) == (IMAGES - kept, kept, 0)


def test_whatever_the_run_is_at_a_signal_ends_it_and_a_second_one_at_once(data, tmp_path):
    for i, wait_s in enumerate((0, 0.5)):
        process = begun(data, tmp_path / str(i))
        time.sleep(wait_s)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (143, 0, -signal.SIGTERM), "before it is heard, a signal ends any process"
        process.communicate()


def test_two_extractions_at_once_one_works_and_the_other_is_told_who_or_waits(data, tmp_path):
    cache = tmp_path / "cache"
    first = begun(data, cache)
    until(cache, 1, first)
    os.kill(first.pid, signal.SIGSTOP)
    second = begun(data, cache)
    said, _ = second.communicate()
    os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 1
    assert f"process {first.pid} on" in json.loads(said)["error"]["what"]
    assert json.loads(first.communicate()[0])["computed"] == IMAGES
    assert sum(stored(cache).values()) == IMAGES
