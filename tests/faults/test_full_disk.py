"""A disk that is full ends a run with one line, keeps what was written, and the next run goes on from there."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from extract import job
from extract.run import extract
from extract.spec import ExtractSpec
from extract.store.shards import shards_in
from tests.tiny import assert_same_rows, features_of, rows_in, rows_of, tiny_folder, tiny_spec

pytestmark = pytest.mark.fault

IMAGES, SHARD_ROWS = 40, 8
FULL_BYTES = 1000
ROOT = Path(__file__).parents[2]

# Runs the command, with no file larger than FULL_BYTES from a certain moment on. (The kernel then answers EFBIG, where
# a full disk answers ENOSPC; both come from write(), and a small disk to fill can be had by root only.)
DRIVER = """
import json, os, resource, sys
from extract import commit, job, run, shard
import pipeline

job.SHARD_ROWS = int(sys.argv[1])
PLACES = {"weights": (run, "prepare_folder"), "shard": (shard, "write_shard"), "index": (commit, "write_index")}

def fill(moment, after, full_bytes):
    module, name = PLACES[moment]
    step, calls = getattr(module, name), 0

    def filling(*given, **named):
        nonlocal calls
        calls += 1
        if calls > after:
            resource.setrlimit(resource.RLIMIT_FSIZE, (full_bytes, resource.RLIM_INFINITY))
        return step(*given, **named)

    setattr(module, name, filling)

for line in sys.stdin:
    case = json.loads(line)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, 1), os.dup2(write, 2)
        fill(*case["full"])
        pipeline.main(case["command"])
    os.close(write)
    with open(read) as pipe:
        said = pipe.read()
    print(json.dumps({"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "said": said}), flush=True)
"""


@pytest.fixture
def spec(tmp_path, monkeypatch) -> ExtractSpec:
    monkeypatch.setattr(job, "SHARD_ROWS", SHARD_ROWS)
    data = tiny_folder(tmp_path / "pets", per_class=IMAGES // 2)
    return tiny_spec(data, tmp_path / "cache", taps=("penultimate",))


def on_full_disks(spec: ExtractSpec, cases: list[tuple[Path, str, int]]) -> list[str]:
    """Run the command once for each (cache, moment, calls that still have room): what it said, after exit code 1."""
    lines = ""
    for cache, moment, after in cases:
        command = ["extract", spec.data, "--model", "builtin", "--weights", "none", "--cache", str(cache), "-j", "2"]
        case = {"full": (moment, after, FULL_BYTES), "command": [*command, "--device", "cpu"]}
        lines += json.dumps(case) + "\n"
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(SHARD_ROWS)],
        cwd=ROOT,
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert [end["code"] for end in ends] == [1] * len(cases), ends
    return [end["said"] for end in ends]


def stored(cache: Path) -> list[Path]:
    return [path for folder in cache.glob("pets/*/shards") for path in shards_in(folder)]


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(spec, tmp_path):
    rooms = {"weights": (0, 0), "shard": (2, 16), "index": (0, IMAGES)}
    said = on_full_disks(spec, [(tmp_path / moment, moment, after) for moment, (after, _) in rooms.items()])
    expected = rows_of(features_of(extract(spec)))
    for (moment, (_, kept)), text in zip(rooms.items(), said, strict=True):
        assert text.startswith("Error: ")
        assert len(text.splitlines()) == 1
        assert "cannot be written" in text
        assert "Make room or take another --cache" in text
        cache = tmp_path / moment
        assert not [path for path in cache.rglob("*") if path.name.startswith(".tmp-")]
        shards = stored(cache)
        assert sum(rows_in(path) for path in shards) == kept
        before = {path: path.stat() for path in shards}
        done = extract(replace(spec, cache=cache))
        assert (done["rows"], done["computed"], done["bad"]) == (IMAGES, IMAGES - kept, 0)
        assert {path: path.stat() for path in shards} == before
        assert_same_rows(rows_of(features_of(done)), expected)


def test_an_index_stays_as_it_was_where_the_new_one_has_no_room(spec):
    old = Path(extract(spec)["path"])
    whole = old.read_bytes()
    (Path(spec.data) / "cat/00.png").unlink()
    on_full_disks(spec, [(spec.cache, "index", 0)])
    assert old.read_bytes() == whole
    assert extract(spec)["dropped"] == 1
