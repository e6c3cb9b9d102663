import csv
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from extract.errors import OptionError, StoreError
from extract.recipe import Recipe
from extract.record import Status
from extract.store import FeatureSet
from extract.store import export as module
from extract.store.disk import Disk
from extract.store.export import ExportSpec, export
from tests.extract.store.tiny_cache import HALF, RECIPE, SEEN, flip, put_set
from tests.tiny import files_in

ROOT = Path(module.__file__).parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waits for the disk, which nothing here can tell
    monkeypatch.setattr(module, "BLOCK_ROWS", 2)


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def features(request, cache) -> FeatureSet:
    cache.mkdir()
    return FeatureSet(put_set(cache, [[4, 0, 1], [2, 5]], getattr(request, "param", RECIPE), bad=[1]).index)


SEEN_HALF = replace(SEEN, store="float16")
of_all_kinds = pytest.mark.parametrize(
    "features", [RECIPE, HALF, SEEN, SEEN_HALF], ids=["float32", "float16", "seen", "seen float16"], indirect=True
)


@of_all_kinds
def test_one_plain_file_says_all_that_the_index_and_the_shards_do(features, cache, tmp_path, monkeypatch):
    out = tmp_path / "new" / "copy.h5"
    done = export(ExportSpec("set", out, cache=cache))
    assert done == {
        "features": features.name,
        "path": str(out),
        "format": "h5",
        "layers": features.recipe.layers,
        "rows": 5,
        "bytes": out.stat().st_size,
    }
    cache.rename(tmp_path / "moved")
    monkeypatch.chdir(out.parent)
    moved = FeatureSet(tmp_path / "moved" / features.name / "features.h5")
    with h5py.File("copy.h5") as file:
        assert sorted(file["layers"]) == sorted(moved.recipe.layers)
        for layer in moved.recipe.layers:
            dataset = file[f"layers/{layer}"]
            assert not dataset.is_virtual
            assert dataset.chunks is None
            assert dataset.dtype == moved.recipe.store
            np.testing.assert_array_equal(dataset[:].astype(np.float32), moved.read(layer))
        assert np.isnan(file["features"][2]).all()
        assert file["features"] == file["layers/penultimate"]
        for name in ("labels", "status", "sha256"):
            np.testing.assert_array_equal(file[name][:], getattr(moved, name))
        for name, texts in (
            ("filenames", moved.ids),
            ("label_names", moved.label_names),
            ("splits", moved.splits),
            ("groups", moved.groups),
            ("errors", moved.errors),
        ):
            assert file[name].asstr()[:].tolist() == texts
        assert dict(file.attrs) == moved.attributes
        assert Recipe.from_json(file.attrs["recipe"]) == moved.recipe


@of_all_kinds
def test_npy_files_and_a_table_say_the_same(features, cache, tmp_path):
    out = tmp_path / "copy"
    done = export(ExportSpec("set", out, "npy", cache=cache))
    arrays = {layer: f"{layer.replace(':', '-')}.npy" for layer in features.recipe.layers}
    assert {path.name for path in out.iterdir()} == {"recipe.json", "rows.csv", *arrays.values()}
    assert done["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    for layer, name in arrays.items():
        rows = np.load(out / name)
        assert rows.dtype == features.recipe.store
        np.testing.assert_array_equal(rows.astype(np.float32), features.read(layer))
    assert Recipe.from_json((out / "recipe.json").read_text()) == features.recipe
    with (out / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(5))
    assert [row["id"] for row in rows] == features.ids
    names = [features.label_names[label] if label >= 0 else "" for label in features.labels]
    assert [row["label"] for row in rows] == names
    assert [row["split"] for row in rows] == features.splits
    assert [row["group"] for row in rows] == features.groups
    assert [row["error"] for row in rows] == features.errors
    assert [row["status"] for row in rows] == [Status.NAMES[status] for status in features.status]
    assert [bytes.fromhex(row["sha256"]) for row in rows] == [digest.tobytes() for digest in features.sha256]


def test_some_taps_can_be_chosen_and_the_deepest_stands_for_features(features, cache, tmp_path):
    done = export(ExportSpec("set", tmp_path / "a.h5", layers=("a:gem",), cache=cache))
    assert done["layers"] == ["a:gem"]
    with h5py.File(tmp_path / "a.h5") as file:
        assert list(file["layers"]) == ["a:gem"]
        assert file["features"] == file["layers/a:gem"]
    with pytest.raises(StoreError, match=r"no layer 'a'\. Known: a:gem, penultimate"):
        export(ExportSpec("set", tmp_path / "b.h5", layers=("a",), cache=cache))
    with pytest.raises(OptionError, match="no format 'npz'"):
        ExportSpec("set", tmp_path / "b.h5", "npz")


@pytest.mark.parametrize("features", [SEEN], indirect=True)
def test_the_centre_stands_for_features_where_it_is_copied_and_a_row_before_a_map(features, cache, tmp_path):
    for number, (wanted, behind) in enumerate(
        [
            (("penultimate@2", "a:map", "penultimate"), "penultimate"),
            (("penultimate@1", "a:map"), "a:map"),
            (("a:map@1", "penultimate@2", "penultimate@1"), "penultimate@1"),
            (("a:map@2",), "a:map@2"),
        ]
    ):
        out = tmp_path / f"{number}.h5"
        done = export(ExportSpec("set", out, layers=wanted, cache=cache))
        assert done["layers"] == [layer for layer in features.recipe.layers if layer in wanted]
        with h5py.File(out) as file:
            assert file["features"] == file[f"layers/{behind}"]


@pytest.mark.parametrize("features", [SEEN], indirect=True)
def test_a_folder_with_views_is_replaced_if_asked(features, cache, tmp_path):
    spec = ExportSpec("set", tmp_path / "copy", "npy", cache=cache)
    export(spec)
    export(replace(spec, layers=("a:map@2",), overwrite=True))
    assert sorted(path.name for path in spec.out.iterdir()) == ["a-map@2.npy", "recipe.json", "rows.csv"]


def test_a_row_that_is_damaged_ends_it_and_leaves_nothing(features, cache, tmp_path):
    flip(features.folder / "shards" / features.shards[1][0], "layers/penultimate")
    for form in ("h5", "npy"):
        with pytest.raises(StoreError, match="'layers/penultimate' is not the recorded one"):
            export(ExportSpec("set", tmp_path / "copy", form, cache=cache))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("form", ["h5", "npy"])
def test_what_is_there_is_replaced_only_if_asked_and_only_by_its_like(features, cache, tmp_path, form):
    out = tmp_path / "copy"
    spec = ExportSpec("set", out, form, cache=cache)
    export(spec)
    before = files_in(tmp_path)
    with pytest.raises(StoreError, match=r"copy: it exists already.*--overwrite"):
        export(spec)
    assert files_in(tmp_path) == before
    export(ExportSpec("set", out, form, ("a:gem",), overwrite=True, cache=cache))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "copy"]
    assert out.is_file() or not (out / "penultimate.npy").exists()


@pytest.mark.parametrize("form", ["h5", "npy"])
def test_a_folder_of_other_things_is_never_replaced(features, cache, tmp_path, form):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    before = files_in(tmp_path)
    with pytest.raises(StoreError, match="it is no export of this format"):
        export(ExportSpec("set", tmp_path / "mine", form, overwrite=True, cache=cache))
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("form", ["h5", "npy"])
def test_a_copy_that_takes_its_name_too_late_leaves_what_was_there(features, cache, tmp_path, monkeypatch, form):
    out = tmp_path / "copy"
    export(ExportSpec("set", out, form, cache=cache))
    before = files_in(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.Path, "replace", fail)
    with pytest.raises(StoreError, match=r"copy: cannot be written \(No space left on device\)"):
        export(ExportSpec("set", out, form, overwrite=True, cache=cache))
    assert files_in(tmp_path) == before


def test_names_that_are_no_utf_8_keep_their_bytes(cache, tmp_path, monkeypatch):
    cache.mkdir()
    features = FeatureSet(put_set(cache, [[0]]).index)
    monkeypatch.setattr(FeatureSet, "ids", [os.fsdecode(b"caf\xe9,\n.png")])
    monkeypatch.setitem(features.attributes, "source", os.fsdecode(b"/caf\xe9"))
    monkeypatch.setattr(module, "open_features", lambda *_: features)
    export(ExportSpec("set", tmp_path / "a.h5", cache=cache))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["filenames"][0] == b"caf\xe9,\n.png"
        assert os.fsencode(file.attrs["source"]) == b"/caf\xe9"
    export(ExportSpec("set", tmp_path / "a", "npy", cache=cache))
    with (tmp_path / "a" / "rows.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert next(csv.DictReader(file))["id"] == os.fsdecode(b"caf\xe9,\n.png")


def test_memory_does_not_grow_with_the_set(features, cache, tmp_path, monkeypatch):
    asked = []
    read = FeatureSet.read
    monkeypatch.setattr(
        FeatureSet, "read", lambda self, layer, rows: asked.append(len(rows)) or read(self, layer, rows)
    )
    export(ExportSpec("set", tmp_path / "a.h5", cache=cache))
    assert asked == [2, 2, 1] * 2
    monkeypatch.setattr(module, "BLOCK_BYTES", 12)
    asked.clear()
    export(ExportSpec("set", tmp_path / "b.h5", cache=cache))
    assert asked == [1] * 5 * 2


class FullDisk(Disk):
    def _write(self, rest: memoryview) -> None:
        raise OSError(28, "No space left on device")


def test_hdf5_never_learns_that_its_disk_is_full_and_who_writes_does(tmp_path):
    with closing(FullDisk(tmp_path / "a")) as disk:
        with h5py.File(disk, "w") as file:
            file["x"] = np.ones(10_000)
        read = bytearray(b"x" * 100)
        assert disk.seek(0, os.SEEK_END) > 80_000
        assert disk.seek(-50, os.SEEK_CUR) == disk.tell()
        assert (disk.readinto(read), bytes(read)) == (100, bytes(100))
        for step in (disk.check, disk.finish):
            with pytest.raises(OSError, match="No space left"):
                step()


# Full means here: no file grows beyond so many bytes. (The kernel then answers EFBIG, where a full disk answers ENOSPC;
# both come from write(), and a small disk to fill can be had by root only.)
FULL = """
import resource, sys
import pipeline
from extract.store import export
export.BLOCK_ROWS = 2
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
pipeline.main(sys.argv[2:])
"""


@pytest.mark.parametrize("form", ["h5", "npy"])
def test_a_full_disk_is_one_line_and_leaves_nothing(features, cache, tmp_path, form):
    whole = export(ExportSpec("set", tmp_path / "whole", form, cache=cache))["bytes"]
    largest = whole if form == "h5" else max(path.stat().st_size for path in (tmp_path / "whole").iterdir())
    command = ["cache", "export", "set", "-o", str(tmp_path / "copy"), "--format", form, "--cache", str(cache)]
    for room in (0, 100, largest // 2, largest - 1):
        done = subprocess.run(
            [sys.executable, "-c", FULL, str(room), *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert done.stderr.startswith(f"Error: {tmp_path / 'copy'}: cannot be written (File too large). Make room")
        assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "whole"]
