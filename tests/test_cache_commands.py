import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

import pipeline
from extract import job
from extract.run import extract
from extract.spec import ExtractSpec
from extract.store import FeatureSet
from extract.store.folders import SetFolder
from tests.extract.store.tiny_cache import flip, put_set, put_shard
from tests.tiny import assert_same_rows, features_of, files_in, rows_in, rows_of, tiny_folder, tiny_spec

ROOT = Path(pipeline.__file__).parent


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(job, "SHARD_ROWS", 3)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waits for the disk, which nothing here can tell


@pytest.fixture
def spec(tmp_path) -> ExtractSpec:
    data = tiny_folder(tmp_path / "pets")
    (data / "cat" / "bad.png").write_bytes(b"words")
    return tiny_spec(data, tmp_path / "cache")


@pytest.fixture
def folder(tmp_path) -> SetFolder:
    (tmp_path / "cache").mkdir()
    return put_set(tmp_path / "cache", [[0, 1, 2], [3, 4]], bad=[1])


def run(folder: Path, *args: object, code: int = 0) -> Result:
    result = CliRunner().invoke(pipeline.main, ["cache", *map(str, args), "--cache", str(folder)])
    assert result.exit_code == code, result.output
    return result


def cache(folder: Path, *args: object, code: int = 0) -> str:
    """All that a command says."""
    return run(folder, *args, code=code).output


def cache_json(folder: Path, *args: object, code: int = 0) -> dict[str, Any]:
    return json.loads(run(folder, *args, "--json", code=code).stdout)


def test_a_repair_costs_just_the_rows_of_the_shards_that_were_damaged(spec):
    before = features_of(extract(spec))
    expected = rows_of(before)
    victim = before.folder / "shards" / before.shards[1][0]
    lost = rows_in(victim)
    assert "1 feature set, " in cache(spec.cache, "verify")
    assert ": all whole" in cache(spec.cache, "verify", "pets")
    flip(victim, "layers/penultimate")
    said = cache(spec.cache, "verify", code=1)
    assert f"{victim}: the SHA-256 of dataset 'layers/penultimate' is not the recorded one\n" in said
    assert ": 1 damaged\n" in said
    [problem] = cache_json(spec.cache, "verify", "pets", code=1)["problems"]
    assert (problem["file"], problem["dataset"], problem["repaired"]) == (str(victim), "layers/penultimate", False)
    assert "Run the same extract again" in cache(spec.cache, "verify", "--repair")
    done = extract(spec)
    assert (done["computed"], done["reused"], done["bad"]) == (lost, 9 - lost, 1)
    assert_same_rows(rows_of(features_of(done)), expected)
    assert cache_json(spec.cache, "verify")["problems"] == []


def test_every_other_file_is_made_anew_after_a_repair_and_nothing_is_computed(spec):
    folder = Path(extract(spec)["path"]).parent
    for name in ("features.h5", "recipe.json", "weights.safetensors", "../contents.h5"):
        path = (folder / name).resolve()
        flip(path)
        assert {each["file"] for each in cache_json(spec.cache, "verify", "--repair")["problems"]} == {str(path)}
        assert extract(spec)["computed"] == 0
        assert path.exists()
        assert cache_json(spec.cache, "verify")["problems"] == []


def test_the_shards_of_images_that_are_gone_can_go_too(spec):
    extract(spec)
    for path in (Path(spec.data) / "dog").iterdir():
        path.unlink()
    index = Path(extract(spec)["path"])
    for shard in (index.parent / "shards").iterdir():
        os.utime(shard, (1, 1))
    rows = rows_of(FeatureSet(index))
    found = cache_json(spec.cache, "gc")
    assert [(item["kind"], item["rows"]) for item in found["items"]] == [("unused", 3)]
    assert cache_json(spec.cache, "gc", "--delete")["bytes"] == found["bytes"] > 0
    assert cache_json(spec.cache, "gc")["items"] == []
    assert_same_rows(rows_of(FeatureSet(index).check()), rows)
    assert extract(spec)["computed"] == 0


def test_the_list_shows_sizes_and_ages_and_what_is_wrong(folder):
    root = folder.cache
    put_set(root, [[0]], name="begun").index.unlink()
    put_set(root, [[0]], name="broken").index.write_bytes(b"words")
    header, row = cache(root, "ls").splitlines()[:2]
    assert header.split() == ["features", "model", "layers", "rows", "bad", "size", "age"]
    assert row.split()[:2] == [folder.name, "builtin:x"]
    assert row.split()[4:6] == ["5", "1"]
    assert " kB " in row
    assert row.split()[-1] == "s"
    said = cache(root, "ls")
    assert "Unfinished: begun/" in said
    assert "cache commit" in said
    assert "Damaged: " in said
    assert "No feature sets in" in cache(root / "none", "ls")


def test_the_description_can_be_read(folder):
    said = cache(folder.cache, "info", "set")
    for part in (
        f"key             {folder.path.name}",
        "source          /data",
        "rows            5, 1 bad",
        "classes         (none) 1, cat 2, dog 2",
        "splits          (none) 1, test 2, train 2",
        "shards          2, ",
        "; 5 of 5 rows are used",
        "layers          a:gem (a), penultimate:avg (b)",
        "mean            0.5, 0.5, 0.5",
        "2 shards, 5 rows: python 3, device cpu",
        "1 x damaged (bad 1)",
        "1.png: damaged",
    ):
        assert part in said, part


def test_of_many_bad_rows_the_first_are_listed(tmp_path):
    (tmp_path / "cache").mkdir()
    put_set(tmp_path / "cache", [list(range(30))], bad=range(30))
    said = cache(tmp_path / "cache", "info", "set")
    assert "and 10 more: --json lists them all" in said
    assert said.count(".png: damaged") == 20


def test_nothing_is_deleted_until_it_is_asked_for(folder):
    stray = put_shard(folder, [9])
    left = folder.path / ".tmp-x"
    left.write_bytes(b"left")
    before = files_in(folder.cache)
    said = cache(folder.cache, "gc")
    assert ["temporary", "4", "B", str(left)] in [line.split() for line in said.splitlines()]
    assert "1 file, 4 B can go. Delete them with: --delete" in said
    assert "1 unfinished file kept: the next extract or fit goes on from there" in said
    assert files_in(folder.cache) == before
    assert "1 file, 4 B deleted." in cache(folder.cache, "gc", "--delete")
    assert (left.exists(), stray.exists()) == (False, True)
    cache(folder.cache, "gc", "--delete", "--unfinished")
    assert not stray.exists()


def test_feature_sets_are_removed_and_what_is_left_is_told(folder):
    notes = folder.path / "notes.txt"
    notes.write_text("mine")
    said = cache(folder.cache, "rm", "set")
    assert f"Removed {folder.name}: " in said
    assert f"Left: {notes}: not a file of the cache" in said
    assert not folder.index.exists()
    assert "no features 'sat'" in cache(folder.cache, "rm", "sat", code=1)
    assert cache_json(folder.cache, "rm", "set")["left"] == [str(notes)]


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_on_a_terminal_it_asks_first(folder, answer, code):
    ours, theirs = pty.openpty()
    command = [sys.executable, "pipeline.py", "cache", "rm", "set", "--json", "--cache", str(folder.cache)]
    os.write(ours, answer)
    done = subprocess.run(command, cwd=ROOT, stdin=theirs, capture_output=True, text=True, check=False)
    for end in (ours, theirs):
        os.close(end)
    assert done.returncode == code
    assert f"Remove {folder.name} (" in done.stderr
    assert folder.index.exists() == ("error" in json.loads(done.stdout)) == (answer == b"n\n")


def test_features_are_copied_for_other_programs(folder, tmp_path):
    expected = FeatureSet(folder.index).read("penultimate")
    done = cache_json(folder.cache, "export", "set", "-o", tmp_path / "a.h5")
    assert set(done) == {"features", "path", "format", "layers", "rows", "bytes"}
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["features"][:], expected)
    said = cache(folder.cache, "export", "set", "-o", tmp_path / "a", "--format", "npy", "-l", "penultimate")
    assert f"{tmp_path / 'a'}: 5 rows of penultimate, " in said
    np.testing.assert_array_equal(np.load(tmp_path / "a" / "penultimate.npy"), expected)
    assert "exists already" in cache(folder.cache, "export", "set", "-o", tmp_path / "a.h5", code=1)
    cache(folder.cache, "export", "set", "-o", tmp_path / "a.h5", "--overwrite")


def test_errors_are_one_json_object(folder):
    (folder.cache / "CACHEDIR.TAG").unlink()
    for command in (["gc"], ["rm", "set"], ["verify", "none"], ["info", "none"], ["export", "none", "-o", "x"]):
        error = cache_json(folder.cache, *command, code=1)["error"]
        assert error["type"] == "StoreError"
        assert error["remedy"]


def test_a_commit_ends_with_1_and_names_the_parts_while_rows_are_missing(spec):
    extract(replace(spec, part=(1, 2)))
    said = run(spec.cache, "commit", "pets", code=1)
    assert said.stdout.startswith("pets/")
    assert ": 9 rows, 5 bad, 5 of them not computed yet\n" in said.stdout
    assert "5 of 9 rows are not computed yet, of these parts: 2/2. Run those parts and this again" in said.stderr
    error = cache_json(spec.cache, "commit", "pets", code=1)["error"]
    assert (error["type"], error["what"]) == ("StoreError", "5 of 9 rows are not computed yet, of these parts: 2/2")
    extract(replace(spec, part=(2, 2)))
    done = cache_json(spec.cache, "commit", "pets")
    assert (done["rows"], done["missing"], done["again"], done["bad"]) == (9, 0, [], 1)
    assert FeatureSet(Path(done["path"])).check().status.sum() == 3


def test_a_part_is_told_apart_from_a_whole_extraction(spec):
    data, model = spec.data, ("-m", "builtin", "--weights", "none", "--device", "cpu", "-j", "1")
    said = CliRunner().invoke(pipeline.main, ["extract", data, *model, "--part", "2/3", "--cache", str(spec.cache)])
    assert said.exit_code == 0, said.output
    assert re.search(r"^pets/\w{12}, part 2/3: 3 rows, 3 computed, 0 reused, 1 bad", said.stdout)
    assert re.search(r"^When all parts are done: cache commit pets/\w{12}\n", said.stdout, re.MULTILINE)


@pytest.mark.parametrize(("part", "code"), [("3", 2), ("a/b", 2), ("1/2/3", 2), ("-1/2", 2), ("0/2", 1), ("3/2", 1)])
def test_what_is_no_part_is_refused(tmp_path, part, code):
    said = CliRunner().invoke(pipeline.main, ["extract", str(tmp_path), f"--part={part}"])
    assert said.exit_code == code
    assert "as in 3/8" in said.stderr or "Count parts from 1" in said.stderr
