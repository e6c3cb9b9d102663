"""A run that is killed, at any instant, loses the shard it was at and nothing else."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from extract import run as story
from extract.errors import StoreError
from extract.run import extract
from extract.spec import ExtractSpec
from extract.store import FeatureSet, open_features
from extract.store.shards import shards_in
from tests.tiny import assert_same_rows, features_of, put, rows_in, rows_of, tiny_folder, tiny_spec

pytestmark = pytest.mark.fault

IMAGES, SHARD_ROWS = 60, 8

# Imports once and forks one child for each death: {"cache", "step", "delay_s"} per line of stdin. The child dies before
# its `step`-th call that changes the disk, the file that it was writing cut in half, or `delay_s` after it began. Each
# line of stdout is how a child ended: 9 by the signal, 0 with all its work done.
DRIVER = """
import json, os, signal, sys, threading
from pathlib import Path
import extract.run
from tests.tiny import tiny_spec

extract.run.SHARD_ROWS = int(sys.argv[2])

def arm(step):
    calls = 0
    def deadly(call):
        def before(*given, **named):
            nonlocal calls
            calls += call is not opened or bool(given[1] & os.O_CREAT)
            if calls == step:
                if call is fsync and not os.path.isdir(f"/proc/self/fd/{given[0]}"):
                    os.ftruncate(given[0], os.fstat(given[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **named)
        return before
    fsync, opened = os.fsync, os.open
    for name in ("mkdir", "open", "fsync", "link", "replace", "rename", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))

for line in sys.stdin:
    death = json.loads(line)
    child = os.fork()
    if not child:
        spec = tiny_spec(sys.argv[1], Path(death["cache"]))
        arm(death.get("step"))
        if "delay_s" in death:
            threading.Timer(death["delay_s"], os.kill, (os.getpid(), signal.SIGKILL)).start()
        extract.run.extract(spec)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def die(data: Path, deaths: Iterable[dict[str, Any]]) -> list[bool]:
    """Run extract once for each death, and tell which were killed before they were done."""
    lines = "".join(json.dumps(death) + "\n" for death in deaths)
    command = [sys.executable, "-c", DRIVER, str(data), str(SHARD_ROWS)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ends = list(map(int, done.stdout.split()))
    assert set(ends) <= {0, -9}, done.stderr
    return [end == -9 for end in ends]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(story, "SHARD_ROWS", SHARD_ROWS)


@pytest.fixture
def spec(tmp_path) -> ExtractSpec:
    return tiny_spec(tiny_folder(tmp_path / "pets", per_class=IMAGES // 2), tmp_path / "whole")


def committed(cache: Path) -> dict[Path, int]:
    """The rows of every shard that has its name; reading one checks it."""
    return {path: rows_in(path) for path in shards_in(folder_of(cache) / "shards")}


def folder_of(cache: Path) -> Path:
    return next(iter(cache.glob("pets/*")), cache / "pets/none")


def assert_recovers(spec: ExtractSpec, expected: dict[str, np.ndarray]) -> None:
    before = committed(spec.cache)
    untouched = {path: path.stat() for path in before}
    done = extract(spec)
    assert (done["rows"], done["computed"], done["bad"]) == (IMAGES, IMAGES - sum(before.values()), 0)
    assert {path: path.stat() for path in before} == untouched
    assert sum(committed(spec.cache).values()) == IMAGES
    assert_same_rows(rows_of(features_of(done)), expected)
    for path in folder_of(spec.cache).rglob("*.h5"):
        with h5py.File(path, "r") as file:
            assert len(file["sha256"])


def test_a_run_killed_at_any_instant_goes_on_from_its_last_shard(spec, tmp_path):
    expected = rows_of(features_of(extract(spec)))
    chance = random.Random(0)  # noqa: S311 no secret
    steps = sorted(chance.sample(range(1, 70), 9))
    deaths = [{"cache": str(tmp_path / f"step {step}"), "step": step} for step in steps]
    deaths += [{"cache": str(tmp_path / f"time {i}"), "delay_s": chance.uniform(0.05, 0.5)} for i in range(2)]
    killed = die(Path(spec.data), deaths)
    caches = [Path(death["cache"]) for death in deaths]
    assert all(killed[: len(steps)])
    assert len({sum(committed(cache).values()) for cache in caches}) > 3, "all died at the same place"
    assert any(path.name.startswith(".tmp-") for cache in caches for path in cache.rglob("*")), "all died between files"
    for cache in caches[: len(steps)]:
        with pytest.raises(StoreError):
            open_features("pets", cache)
    for cache in caches:
        assert_recovers(replace(spec, cache=cache), expected)


def test_a_run_killed_again_and_again_gets_done(spec, tmp_path):
    cache = tmp_path / "often"
    killed = die(Path(spec.data), [{"cache": str(cache), "step": 30}] * 5)
    assert killed[0]
    assert not killed[-1]
    assert killed == sorted(killed, reverse=True)
    assert sum(committed(cache).values()) == IMAGES


def test_readers_see_the_old_index_or_the_new_one_whenever_an_update_dies(spec, tmp_path):
    extract(spec)
    put(Path(spec.data) / "cat/new.png", 999)
    caches = [tmp_path / f"update {step}" for step in range(1, 14)]
    for cache in caches:
        shutil.copytree(spec.cache, cache)
    old = rows_of(FeatureSet(folder_of(spec.cache) / "features.h5"))
    killed = die(Path(spec.data), [{"cache": str(cache), "step": step} for step, cache in enumerate(caches, 1)])
    new = rows_of(features_of(extract(spec)))
    seen = [rows_of(FeatureSet(folder_of(cache) / "features.h5")) for cache in caches]
    for rows in seen:
        assert_same_rows(rows, new if "cat/new.png" in rows else old)
    assert killed == [True] * 12 + [False]
    assert "cat/new.png" not in seen[0]
    assert "cat/new.png" in seen[-1]
