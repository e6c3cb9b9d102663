import csv
import errno
import itertools
import json
import os
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from extract import contents, golden, images, job, loader
from extract import run as story
from extract.errors import Interrupted, OptionError, StoreError
from extract.progress import Silent
from extract.record import Record, Status
from extract.run import dry_run, extract
from extract.spec import EngineSpec, ExtractSpec
from extract.store import FeatureSet, open_features
from extract.store.known import FINE_NS, read_known, signature_of, write_known
from extract.store.lock import held, lock_of
from extract.store.sealed import BLOCK_BYTES, parse
from extract.views import looks
from tests.faults.storage import InProcess
from tests.interrupt import interrupted
from tests.tiny import (
    assert_same_rows,
    features_of,
    files_in,
    in_all_views,
    picture,
    put,
    rows_in,
    rows_of,
    tiny_folder,
    tiny_spec,
)

COUNTS = ("rows", "computed", "reused", "dropped", "bad", "duplicates")


@pytest.fixture(autouse=True)
def several_shards(monkeypatch):
    monkeypatch.setattr(job, "SHARD_ROWS", 3)
    monkeypatch.setattr(loader, "Decoder", InProcess)  # what decodes is not at stake here, and costs a start
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waits for the disk, which nothing here can tell


@pytest.fixture
def data(tmp_path) -> Path:
    return tiny_folder(tmp_path / "pets")


@pytest.fixture
def spec(tmp_path, data) -> ExtractSpec:
    return tiny_spec(data, tmp_path / "cache")


def counts(done: dict[str, Any]) -> dict[str, int]:
    return {name: done[name] for name in COUNTS if done[name]}


def shards_of(done: dict[str, Any]) -> list[Path]:
    return sorted((Path(done["path"]).parent / "shards").iterdir())


def from_scratch(spec: ExtractSpec, tmp_path: Path) -> FeatureSet:
    """The feature set as a cache without a past has it."""
    return features_of(extract(replace(spec, cache=tmp_path / "fresh")))


def assert_as_from_scratch(done: dict[str, Any], spec: ExtractSpec, tmp_path: Path) -> None:
    got, expected = features_of(done), from_scratch(spec, tmp_path)
    for layer in got.layers:
        assert_same_rows(rows_of(got, layer), rows_of(expected, layer))
    assert got.ids == expected.ids
    assert got.label_names == expected.label_names
    assert got.splits == expected.splits
    assert got.errors == expected.errors
    for column in ("labels", "status", "sha256"):
        assert np.array_equal(getattr(got, column), getattr(expected, column)), column


def test_the_first_run_computes_every_image_once(spec):
    done = extract(spec)
    features = features_of(done)
    assert counts(done) == {"rows": 8, "computed": 8}
    assert done["features"] == features.name == f"pets/{done['key'][:12]}"
    assert len(shards_of(done)) == 3
    assert features.ids == sorted(f"{name}/{i:02}.{('png', 'jpg')[i % 2]}" for name in ("cat", "dog") for i in range(4))
    assert [features.label_names[label] for label in features.labels] == ["cat"] * 4 + ["dog"] * 4
    assert features.shapes == {"layer1": (32,), "penultimate": (128,)}
    assert np.isfinite(features.read("penultimate")).all()
    assert len(np.unique(features.read("penultimate"), axis=0)) == 8
    assert (spec.cache / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert done["bytes"] == sum(path.stat().st_size for path in features.folder.rglob("*") if path.is_file())


def test_the_second_run_computes_nothing_and_touches_no_shard(spec):
    before = {path: path.stat() for path in shards_of(extract(spec))}
    again = extract(replace(spec, batch_size=1, workers=1))
    assert counts(again) == {"rows": 8, "reused": 8}
    assert {path: path.stat() for path in shards_of(again)} == before


def test_only_what_is_added_is_computed(spec, data, tmp_path):
    first = files_in(shards_of(extract(spec))[0].parent)
    put(data / "cat/99.png", 99)
    put(data / "emu/00.png", 100)
    done = extract(spec)
    assert counts(done) == {"rows": 10, "computed": 2, "reused": 8}
    assert first.items() <= files_in(shards_of(done)[0].parent).items()
    assert features_of(done).label_names == ["cat", "dog", "emu"]
    assert_as_from_scratch(done, spec, tmp_path)


def test_what_is_deleted_is_dropped_and_comes_back_for_nothing(spec, data, tmp_path):
    extract(spec)
    kept = (data / "cat/01.jpg").rename(tmp_path / "kept.jpg")
    done = extract(spec)
    assert counts(done) == {"rows": 7, "reused": 7, "dropped": 1}
    assert_as_from_scratch(done, spec, tmp_path)
    kept.rename(data / "cat/01.jpg")
    assert counts(extract(spec)) == {"rows": 8, "reused": 8}


def test_renaming_computes_nothing(spec, data, tmp_path):
    extract(spec)
    (data / "dog/02.png").rename(data / "dog/zz.png")
    done = extract(spec)
    assert counts(done) == {"rows": 8, "reused": 8, "dropped": 1}
    assert_as_from_scratch(done, spec, tmp_path)


def test_relabelling_computes_nothing(spec, data, tmp_path):
    before = rows_of(features_of(extract(spec)))
    (data / "cat/00.png").rename(data / "dog/moved.png")
    done = extract(spec)
    features = features_of(done)
    assert counts(done) == {"rows": 8, "reused": 8, "dropped": 1}
    assert features.label_names[features.labels[features.ids.index("dog/moved.png")]] == "dog"
    assert np.array_equal(rows_of(features)["dog/moved.png"], before["cat/00.png"])
    assert_as_from_scratch(done, spec, tmp_path)


def test_changed_content_under_the_same_name_is_computed(spec, data, tmp_path):
    before = rows_of(features_of(extract(spec)))
    put(data / "dog/00.png", 77)
    done = extract(spec)
    assert counts(done) == {"rows": 8, "computed": 1, "reused": 7}
    after = rows_of(features_of(done))
    assert [name for name in before if not np.array_equal(before[name], after[name])] == ["dog/00.png"]
    assert_as_from_scratch(done, spec, tmp_path)


def test_swapped_contents_swap_their_rows(spec, data):
    before = rows_of(features_of(extract(spec)))
    one, other = data / "cat/00.png", data / "dog/00.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    done = extract(spec)
    after = rows_of(features_of(done))
    assert counts(done) == {"rows": 8, "reused": 8}
    assert np.array_equal(after["cat/00.png"], before["dog/00.png"])
    assert np.array_equal(after["dog/00.png"], before["cat/00.png"])


def test_equal_files_are_computed_once_and_are_rows_each(spec, data, tmp_path):
    for name in ("cat/copy.png", "dog/copy.png", "dog/copy.jpg"):
        shutil.copy(data / "cat/00.png", data / name)
    done = extract(spec)
    assert counts(done) == {"rows": 11, "computed": 8, "duplicates": 3}
    rows = rows_of(features_of(done))
    for name in ("cat/copy.png", "dog/copy.png", "dog/copy.jpg"):
        assert np.array_equal(rows[name], rows["cat/00.png"])
    (data / "cat/00.png").unlink()
    assert counts(extract(spec)) == {"rows": 10, "reused": 10, "dropped": 1}
    assert_as_from_scratch(extract(spec), spec, tmp_path)


@pytest.mark.filterwarnings("ignore:::PIL")
def test_a_bad_image_is_a_row_with_its_reason_and_moves_no_other(spec, data, tmp_path):
    good = rows_of(from_scratch(spec, tmp_path))
    whole = (data / "dog/00.png").read_bytes()
    bad = {
        "cat/00a.jpg": (b"words", Status.NOT_AN_IMAGE),
        "cat/zero.png": (b"", Status.EMPTY),
        "dog/000.png": (whole[: len(whole) // 2], Status.DAMAGED),
        "dog/strip.bmp": (b"", Status.TOO_LARGE),
    }
    for name, (content, _) in bad.items():
        (data / name).write_bytes(content)
    picture(1, (1, 900)).save(data / "dog/strip.bmp")
    (data / "dog/gone.png").symlink_to(tmp_path / "nowhere")
    done = extract(spec)
    features = features_of(done)
    assert counts(done) == {"rows": 13, "computed": 11, "bad": 5}
    expected = {name: status for name, (_, status) in bad.items()} | {"dog/gone.png": Status.MISSING}
    assert {features.ids[i]: features.status[i] for i in np.flatnonzero(features.status)} == expected
    assert {row["id"] for row in done["bad_rows"]} == expected.keys()
    assert all(bool(error) == (name in expected) for name, error in zip(features.ids, features.errors, strict=True))
    rows = rows_of(features)
    assert all(np.isnan(rows.pop(name)).all() for name in expected)
    assert_same_rows(rows, good)
    assert counts(extract(spec)) == {"rows": 13, "reused": 11, "bad": 5}


def test_a_bad_image_that_is_mended_gets_its_row(spec, data, tmp_path):
    (data / "cat/new.png").write_bytes(b"words")
    assert counts(extract(spec)) == {"rows": 9, "computed": 9, "bad": 1}
    put(data / "cat/new.png", 50)
    done = extract(spec)
    assert counts(done) == {"rows": 9, "computed": 1, "reused": 8}
    assert_as_from_scratch(done, spec, tmp_path)


def test_a_folder_of_nothing_but_bad_images_is_a_feature_set(tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "words/a.png").write_bytes(b"")
    (tmp_path / "words/b.png").write_bytes(b"words")
    done = extract(tiny_spec(tmp_path / "words", tmp_path / "cache"))
    assert counts(done) == {"rows": 2, "computed": 1, "bad": 2}
    assert np.isnan(features_of(done).read("penultimate")).all()


def test_a_folder_that_moved_is_recognised(spec, data, tmp_path):
    extract(spec)
    (tmp_path / "archive").mkdir()
    moved = data.rename(tmp_path / "archive/pets")
    done = extract(replace(spec, data=str(moved)))
    assert counts(done) == {"rows": 8, "reused": 8}
    assert features_of(done).source == str(moved)


@pytest.mark.parametrize("changes", [{}, {"taps": ("layer2",)}, {"store": "float16"}])
def test_another_folder_of_the_same_name_is_refused_and_nothing_is_written(spec, tmp_path, changes):
    extract(spec)
    before = files_in(spec.cache)
    other = tiny_folder(tmp_path / "other/pets", seed=500)
    with pytest.raises(StoreError, match=r"other images.*--name"):
        extract(replace(spec, data=str(other), **changes))
    assert files_in(spec.cache) == before
    assert counts(extract(replace(spec, data=str(other), name="pets-2", **changes))) == {"rows": 8, "computed": 8}


def test_another_manifest_beside_the_first_is_other_data_too(spec, data, tmp_path):
    lists = {}
    for name in ("cat", "dog"):
        lists[name] = data / f"{name}.csv"
        lists[name].write_text(
            "path,label\n" + "".join(f"{name}/{p.name},{name}\n" for p in sorted((data / name).iterdir()))
        )
    extract(replace(spec, data=str(lists["cat"]), name="pets"))
    with pytest.raises(StoreError, match=r"other images, those of .*cat.csv.*--name"):
        extract(replace(spec, data=str(lists["dog"]), name="pets"))


def test_another_recipe_lives_beside_the_first(spec):
    first = extract(spec)
    before = files_in(Path(first["path"]).parent)
    second = extract(replace(spec, taps=("layer2",)))
    assert counts(second) == {"rows": 8, "computed": 8}
    assert second["key"] != first["key"]
    assert files_in(Path(first["path"]).parent) == before
    with pytest.raises(StoreError, match="2 feature sets"):
        open_features("pets", spec.cache)
    assert open_features(f"pets/{first['key'][:5]}", spec.cache).recipe.key == first["key"]


@pytest.mark.parametrize("name", ["..", "a/b", "/abs", ".hidden", "sp ace", "-dash"])
def test_names_that_lead_out_of_the_cache_are_refused(spec, name, tmp_path):
    with pytest.raises(OptionError, match="--name"):
        extract(replace(spec, name=name))
    assert not spec.cache.exists()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(spec, data):
    planned = dry_run(spec)
    assert not spec.cache.exists()
    assert {name: planned[name] for name in ("rows", "to_compute", "reused")} == {
        "rows": 8,
        "to_compute": 8,
        "reused": 0,
    }
    assert planned["bytes"] == 8 * (32 + 128) * 4
    done = extract(spec)
    assert (planned["features"], planned["key"]) == (done["features"], done["key"])
    put(data / "cat/new.png", 50)
    before = files_in(spec.cache)
    planned = dry_run(spec)
    assert {name: planned[name] for name in ("rows", "to_compute", "reused")} == {
        "rows": 9,
        "to_compute": 1,
        "reused": 8,
    }
    assert files_in(spec.cache) == before


def test_a_dry_run_tells_the_time_from_a_few_rows(spec, monkeypatch):
    monkeypatch.setattr(story, "probe", lambda shards, extractor, asked: 3.0 * sum(map(len, shards)) / 8)
    planned = dry_run(spec)
    assert (planned["images_per_s"], planned["estimated_s"]) == (3.0, 2.7)
    extract(spec)
    monkeypatch.setattr(story, "probe", lambda *_: pytest.fail("there is nothing to compute"))
    planned = dry_run(spec)
    assert (planned["images_per_s"], planned["estimated_s"]) == (None, 0.0)


@pytest.mark.parametrize(("engine", "told"), [(EngineSpec(), []), (EngineSpec("ray"), [story.ESTIMATED_HERE])])
def test_a_dry_run_says_that_its_time_is_of_no_actors(spec, monkeypatch, engine, told):
    monkeypatch.setattr(story, "probe", lambda *_: 1.0)
    notes = Notes()
    assert dry_run(replace(spec, engine=engine), notes)["notes"] == told
    assert notes.heard == told
    extract(spec)
    assert dry_run(replace(spec, engine=engine))["notes"] == []


def test_a_dry_run_that_is_interrupted_writes_nothing(spec):
    class Listener(Silent):
        def advance(self, steps: int, bad: int = 0) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        dry_run(spec, Listener())
    assert not spec.cache.exists()


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)


def test_a_disk_without_room_is_told_before_the_work_and_where_there_is_none_it_is_not_looked_at(spec, monkeypatch):
    n_bytes = 8 * (32 + 128) * 4
    with monkeypatch.context() as patch:
        patch.setattr(story.files, "free_bytes", lambda _: n_bytes - 1)
        with pytest.raises(StoreError, match=r"8 rows take 0\.00 GB, and 0\.00 GB are free\. Free some"):
            extract(spec)
        assert not list(spec.cache.glob("pets/*/*"))
        patch.setattr(story.files, "free_bytes", lambda _: n_bytes)
        patch.setattr(job, "MUCH", n_bytes - 1)
        notes = Notes()
        assert counts(extract(spec, notes)) == {"rows": 8, "computed": 8}
        assert notes.heard == ["8 rows take 0.00 GB, and 0.00 GB are free"]
        patch.setattr(story.files, "free_bytes", lambda _: pytest.fail("nothing is to be computed"))
        assert counts(extract(spec)) == {"rows": 8, "reused": 8}


def test_views_are_rows_of_their_own_beside_those_of_the_centre(spec, tmp_path):
    for name in ("seen", "mirrored"):
        (tmp_path / name).mkdir()
    for i in range(5):
        image = picture(i, (40, 40))  # of two parts, neither is in the middle of an odd number of pixels
        image.save(tmp_path / "seen" / f"{i}.png")
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored" / f"{i}.png")
    seen = features_of(extract(replace(spec, data=str(tmp_path / "seen"), views=3, view_seed=5)))
    assert set(seen.shapes) == {f"{tap}{view}" for tap in ("layer1", "penultimate") for view in ("", "@1", "@2")}
    for name, layer in (("seen", "penultimate"), ("mirrored", "penultimate@1")):
        alone = features_of(extract(replace(spec, data=str(tmp_path / name), name=f"{name}-alone")))
        assert_same_rows(rows_of(seen, layer), rows_of(alone))


def test_without_flips_nothing_is_mirrored(spec):
    asked = replace(spec, taps=("penultimate",), views=6, view_seed=5)
    seen, plain = features_of(extract(asked)), features_of(extract(replace(asked, view_flips=False)))
    assert (seen.recipe.view_flips, plain.recipe.view_flips) == (True, False)
    assert_same_rows(rows_of(plain), rows_of(seen))
    drawn = [looks(36, 40, seen.recipe.preprocessing, digest=sha, views=6, seed=5) for sha in map(bytes, seen.sha256)]
    flipped = np.array([[look.flip for look in views] for views in drawn])
    other, given = (in_all_views(features, "penultimate") for features in (plain, seen))
    same = np.isclose(other, given, rtol=1e-5, atol=1e-6).all(2)
    assert np.array_equal(same, ~flipped), "all others are the same crops"


def test_a_random_view_hangs_on_the_content_and_the_seed_alone(spec, data, tmp_path):
    drawn = replace(spec, views=3, view_seed=5)
    first = rows_of(features_of(extract(drawn)), "penultimate@2")
    (data / "cat/00.png").rename(data / "cat/zz.png")
    again = rows_of(features_of(extract(replace(drawn, cache=tmp_path / "other", batch_size=1))), "penultimate@2")
    assert_same_rows({**again, "cat/00.png": again["cat/zz.png"]}, {**first, "cat/zz.png": first["cat/00.png"]})
    reseeded = extract(replace(drawn, view_seed=6))
    assert reseeded["computed"] == 8
    other = rows_of(features_of(reseeded), "penultimate@2")
    assert not any(np.allclose(other[name], row, rtol=1e-3) for name, row in again.items())


def test_a_map_is_stored_as_it_is_in_shards_of_fewer_rows(spec, monkeypatch):
    monkeypatch.setattr(job, "SHARD_BYTES", 2 * 64 * 16 * 16 * 4)
    done = extract(replace(spec, taps=("layer2:map",)))
    features = features_of(done)
    assert features.shapes == {"layer2:map": (64, 16, 16)}
    assert [rows_in(path) for path in shards_of(done)] == [2] * 4
    pooled = features_of(extract(replace(spec, taps=("layer2",)))).read("layer2")
    np.testing.assert_allclose(features.read("layer2:map").mean((2, 3)), pooled, rtol=1e-5, atol=1e-6)


def test_what_ran_the_network_is_told_and_noted(spec):
    done = extract(replace(spec, compile="none"))
    assert done["runner"] == "eager"
    with h5py.File(shards_of(done)[0], "r") as file:
        assert json.loads(file.attrs["writer"])["runner"] == "eager"


def test_plain_h5py_reads_it_from_any_working_directory(spec, data, tmp_path, monkeypatch):
    (data / "cat/bad.png").write_bytes(b"words")
    (data / "dog/twin.png").write_bytes((data / "cat/00.png").read_bytes())
    done = extract(spec)
    features = features_of(done)
    (tmp_path / "elsewhere/shards").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with h5py.File(done["path"], "r") as file:
        for layer in features.layers:
            np.testing.assert_array_equal(file[f"layers/{layer}"][:], features.read(layer))
        np.testing.assert_array_equal(file["features"][:], features.read("penultimate"))
        assert file["features"] == file["layers/penultimate"]
        assert file["filenames"].asstr()[:].tolist() == features.ids
        assert file["labels"][:].tolist() == features.labels.tolist() == [0] * 5 + [1] * 5
        assert file["labels"].dtype == np.int64
        assert file["label_names"].asstr()[:].tolist() == ["cat", "dog"]
        assert file["splits"].asstr()[:].tolist() == file["groups"].asstr()[:].tolist() == [""] * 10
        assert file["status"].dtype == np.uint8
        assert file["errors"].asstr()[:].tolist() == features.errors
        assert file["sha256"].shape == (10, 32)
        assert (file.attrs["format"], file.attrs["key"]) == ("offshelf-features", done["key"])
        assert file.attrs["recipe"] == features.recipe.to_json(indent=None)


def test_a_cache_that_moved_still_reads(spec, tmp_path):
    done = extract(spec)
    expected = features_of(done).read("penultimate")
    spec.cache.rename(tmp_path / "moved")
    moved = open_features("pets", tmp_path / "moved")
    assert np.array_equal(moved.read("penultimate"), expected)
    with h5py.File(moved.path, "r") as file:
        assert np.array_equal(file["features"][:], expected)


def rows_behind(done: dict[str, Any], shard: Path) -> np.ndarray:
    """Which rows of the index lie in a shard."""
    with h5py.File(shard, "r") as file:
        inside = {digest.tobytes() for digest in file["sha256"][:]}
    return np.array([digest.tobytes() in inside for digest in features_of(done).sha256])


def test_a_lost_shard_reads_as_nan_or_not_at_all_and_just_its_rows_are_computed_again(spec, tmp_path):
    done = extract(spec)
    expected = features_of(done).read("penultimate")
    lost = shards_of(done)[1]
    gone = rows_behind(done, lost)
    lost.unlink()
    with h5py.File(done["path"], "r") as file:
        seen = file["features"][:]
    assert np.isnan(seen[gone]).all()
    assert np.array_equal(seen[~gone], expected[~gone])
    with pytest.raises(StoreError, match="missing"):
        features_of(done).read("penultimate")
    assert np.array_equal(features_of(done).read("penultimate", np.flatnonzero(~gone)), expected[~gone])
    again = extract(spec)
    assert counts(again) == {"rows": 8, "computed": gone.sum(), "reused": 8 - gone.sum()}
    assert_as_from_scratch(again, spec, tmp_path)


def flipped(old: bytes) -> bytes:
    """Flip a byte of the rows of a shard, or of the names of an index."""
    parts = parse(old, Path(), json.loads(old[:BLOCK_BYTES].rstrip(b"\0"))["offshelf"])[0].parts
    at = parts.get("layers/layer1", parts.get("filenames")).offset
    return old[:at] + bytes([old[at] ^ 1]) + old[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped byte in the rows": flipped,
    "a flipped last byte": lambda old: old[:-1] + bytes([old[-1] ^ 0x80]),
    "a missing end": lambda old: old[:-100],
    "an empty file": lambda _: b"",
    "another file": lambda old: b"words" * len(old),
    "no header": lambda old: bytes(BLOCK_BYTES) + old[BLOCK_BYTES:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_never_read_and_extract_computes_what_is_lost(spec, damage, tmp_path):
    done = extract(spec)
    victim = shards_of(done)[0]
    lost = rows_behind(done, victim).sum()
    victim.write_bytes(DAMAGES[damage](victim.read_bytes()))
    with pytest.raises(StoreError, match=r"Run cache verify --repair, then extract|Run extract again"):
        [features_of(done).read(layer) for layer in ("layer1", "penultimate")]
    again = extract(replace(spec, rehash=True))
    assert counts(again) == {"rows": 8, "computed": lost, "reused": 8 - lost}
    assert_as_from_scratch(again, spec, tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_refused_and_costs_no_computation(spec, damage, tmp_path):
    done = extract(spec)
    index = Path(done["path"])
    index.write_bytes(DAMAGES[damage](index.read_bytes()))
    with pytest.raises(StoreError, match="Run extract again"):
        FeatureSet(index)
    again = extract(spec)
    assert counts(again) == {"rows": 8, "reused": 8}
    assert_as_from_scratch(again, spec, tmp_path)


def test_no_byte_of_a_header_can_be_changed_unseen(spec):
    done = extract(spec)
    index = Path(done["path"])
    whole = index.read_bytes()
    for place in range(whole.index(b"\n") + 1):
        index.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            same = FeatureSet(index).ids == features_ids(whole, index)
        except StoreError:
            continue
        assert same


def features_ids(whole: bytes, index: Path) -> list[str]:
    other = index.with_name("whole.h5")
    other.write_bytes(whole)
    return FeatureSet(other).ids


def test_a_shard_put_in_the_place_of_another_is_refused(spec):
    done = extract(spec)
    one, other, *_ = shards_of(done)
    shutil.copy(other, one)
    with pytest.raises(StoreError, match="damaged"):
        features_of(done).read("penultimate")


def as_tar(data: Path, path: Path) -> str:
    with tarfile.open(path, "w") as tar:
        for file in sorted(data.rglob("*.*")):
            tar.add(file, str(file.relative_to(data)))
    return str(path)


def as_csv(data: Path, path: Path) -> str:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([str(image), image.parent.name] for image in sorted(data.rglob("*.*")))
    return str(path)


def test_a_tar_and_a_manifest_give_the_rows_of_the_folder(spec, data, tmp_path):
    folder = features_of(extract(spec))
    tar = features_of(extract(replace(spec, data=as_tar(data, tmp_path / "pets-tar.tar"))))
    listed = features_of(extract(replace(spec, data=as_csv(data, data.parent / "pets-csv.csv"))))
    assert tar.ids == folder.ids
    assert listed.ids == [f"pets/{name}" for name in folder.ids]
    for other in (tar, listed):
        assert other.labels.tolist() == folder.labels.tolist()
        assert np.array_equal(other.sha256, folder.sha256)
        assert np.array_equal(other.read("penultimate"), folder.read("penultimate"))


def test_a_tar_under_the_name_of_its_folder_is_the_same_data(spec, data, tmp_path):
    extract(spec)
    done = extract(replace(spec, data=as_tar(data, tmp_path / "pets.tar")))
    assert counts(done) == {"rows": 8, "reused": 8}


def test_a_flat_folder_has_no_labels(tmp_path):
    for i in range(4):
        put(tmp_path / "flat" / f"{i}.png", i)
    features = features_of(extract(tiny_spec(tmp_path / "flat", tmp_path / "cache")))
    assert features.labels.tolist() == [-1] * 4
    assert features.label_names == []
    assert np.isfinite(features.read("penultimate")).all()


def test_one_class_is_a_data_set(tmp_path):
    features = features_of(extract(tiny_spec(tiny_folder(tmp_path / "x", classes=["only"]), tmp_path / "cache")))
    assert (features.label_names, features.labels.tolist()) == (["only"], [0] * 4)


def test_one_image_is_a_data_set(tmp_path):
    put(tmp_path / "x/a/1.png", 1)
    assert features_of(extract(tiny_spec(tmp_path / "x", tmp_path / "cache"))).read("layer1").shape == (1, 32)


def test_splits_are_kept_by_our_names(tmp_path):
    for seed, split in enumerate(("train", "valid", "test")):
        tiny_folder(tmp_path / "pets" / split, per_class=1, seed=10 * seed)
    done = extract(tiny_spec(tmp_path / "pets", tmp_path / "cache"))
    features = features_of(done)
    assert dict(zip(features.ids, features.splits, strict=True)) == {
        f"{folder}/{name}/00.png": split
        for folder, split in {"train": "train", "valid": "val", "test": "test"}.items()
        for name in ("cat", "dog")
    }
    assert features.label_names == ["cat", "dog"]
    with h5py.File(done["path"], "r") as file:
        assert file["splits"].asstr()[:].tolist() == features.splits


def test_names_of_every_alphabet_and_of_none_survive(tmp_path):
    names = [
        b"caf\xc3\xa9/na\xc3\xafve \xe2\x98\x83.png",
        b"caf\xc3\xa9/\xf0\x9f\x90\x95.png",
        b"\xff\xfe/\xe9 latin.png",
    ]
    names += [b'a\'b/"quoted", comma.png', b"a'b/new\nline.png"]
    for seed, name in enumerate(names):
        path = tmp_path / "data" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(path)
    (tmp_path / "data" / os.fsdecode(b"\xff\xfe/bad.png")).write_bytes(b"words")
    done = extract(tiny_spec(tmp_path / "data", tmp_path / "cache"))
    features = features_of(done)
    assert sorted(map(os.fsencode, features.ids)) == sorted([*names, b"\xff\xfe/bad.png"])
    assert {os.fsencode(name) for name in features.label_names} == {b"caf\xc3\xa9", b"\xff\xfe", b"a'b"}
    with h5py.File(done["path"], "r") as file:
        assert sorted(file["filenames"][:].tolist()) == sorted([*names, b"\xff\xfe/bad.png"])
    assert counts(extract(tiny_spec(tmp_path / "data", tmp_path / "cache"))) == {"rows": 6, "reused": 6, "bad": 1}


def test_a_data_folder_of_a_name_that_is_no_utf8(tmp_path):
    data = tiny_folder(tmp_path / os.fsdecode(b"d\xe9"), per_class=1)
    done = extract(tiny_spec(data, tmp_path / "cache"))
    assert features_of(done).source == str(data)


@pytest.mark.parametrize(
    ("taps", "primary"),
    [(("layer1", "penultimate"), "penultimate"), (("layer2", "layer1"), "layer2"), (("stages",), "layer3.1")],
)
def test_the_primary_tap_is_listed_as_features(spec, taps, primary):
    features = features_of(extract(replace(spec, taps=taps)))
    if primary not in features.layers:
        primary = features.layers[-1]
    with h5py.File(features.path, "r") as file:
        assert set(file["layers"]) == set(features.layers)
        assert file["features"] == file[f"layers/{primary}"]


def test_rows_can_be_read_in_any_order_and_more_than_once(spec):
    features = features_of(extract(spec))
    every = features.read("layer1")
    for rows in ([7, 0, 3, 3], [], [5]):
        assert np.array_equal(features.read("layer1", np.array(rows, np.int64)), every[rows])
    with pytest.raises(StoreError, match="no layer"):
        features.read("layer2")


def test_the_number_of_shards_does_not_change_a_row(spec, tmp_path, monkeypatch):
    many = rows_of(features_of(extract(spec)))
    monkeypatch.setattr(job, "SHARD_ROWS", 1000)
    done = extract(replace(spec, cache=tmp_path / "other"))
    assert len(shards_of(done)) == 1
    assert_same_rows(rows_of(features_of(done)), many)


def test_a_file_that_changes_after_it_was_hashed_is_a_bad_row_until_the_next_run(spec, data, tmp_path, monkeypatch):
    compute = story.run_plan

    def change_then_compute(*args):
        put(data / "cat/00.png", 123)
        return compute(*args)

    monkeypatch.setattr(story, "run_plan", change_then_compute)
    done = extract(spec)
    features = features_of(done)
    assert counts(done) == {"rows": 8, "computed": 8, "bad": 1}
    assert features.errors[features.ids.index("cat/00.png")].endswith("run extract again")
    assert np.isnan(rows_of(features)["cat/00.png"]).all()
    monkeypatch.setattr(story, "run_plan", compute)
    again = extract(spec)
    assert counts(again) == {"rows": 8, "reused": 8}
    assert_as_from_scratch(again, spec, tmp_path)


def test_progress_hears_of_every_image_and_of_the_bad_ones(spec, data):
    heard = []

    class Listener:
        def start(self, what: str, total: int) -> None:
            heard.append([what, total, 0, 0])

        def advance(self, steps: int, bad: int = 0) -> None:
            heard[-1][2] += steps
            heard[-1][3] += bad

        def note(self, text: str) -> None:
            raise AssertionError(text)

    (data / "cat/bad.png").write_bytes(b"words")
    extract(spec, Listener())
    assert heard == [["hash", 9, 9, 0], ["extract", 9, 9, 1]]


def test_a_shard_from_another_recipe_is_not_taken_for_one_of_ours(spec):
    first = extract(spec)
    other = replace(spec, backbone=replace(spec.backbone, seed=1))
    second = extract(other)
    for foreign in shards_of(second):
        shutil.copy(foreign, Path(first["path"]).parent / "shards" / foreign.name)
    expected = rows_of(features_of(first))
    assert counts(extract(spec)) == {"rows": 8, "reused": 8}
    assert_same_rows(rows_of(features_of(first)), expected)


def test_damaged_weights_in_the_cache_are_written_anew(spec):
    features = features_of(extract(spec))
    whole = features.weights_path.read_bytes()
    features.weights_path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match="weights are missing or damaged"):
        features.check_weights()
    assert counts(extract(replace(spec, rehash=True))) == {"rows": 8, "reused": 8}
    features.check_weights()
    assert features.weights_path.read_bytes() == whole


def test_a_name_is_not_taken_over_by_a_folder_that_shares_one_image(spec, data, tmp_path):
    extract(spec)
    other = tiny_folder(tmp_path / "elsewhere" / "pets", seed=100)
    shutil.copy(data / "cat" / "00.png", other / "cat" / "shared.png")
    with pytest.raises(StoreError, match="stands for other images"):
        extract(replace(spec, data=str(other)))


def test_some_images_are_a_data_set_of_their_own_with_the_rows_they_have_among_all(spec, tmp_path):
    everything = features_of(extract(spec))
    some = {"cat/00.png", "dog/01.jpg", "dog/02.png"}
    done = extract(replace(spec, name="pets-some", only=frozenset(some)))
    assert counts(done) == {"rows": 3, "computed": 3}
    chosen = features_of(done)
    assert chosen.recipe.key == everything.recipe.key
    assert_same_rows(rows_of(chosen), {name: row for name, row in rows_of(everything).items() if name in some})
    assert FeatureSet(everything.path).digest == everything.digest


def test_other_images_of_the_same_data_take_their_place_wherever_they_lie_and_come_back_for_nothing(spec, data):
    some = replace(spec, name="pets-some", only=frozenset({"cat/00.png", "cat/01.jpg"}))
    others = replace(some, only=frozenset({"dog/00.png", "dog/01.jpg", "cat/00.png"}))
    assert counts(extract(some)) == {"rows": 2, "computed": 2}
    moved = data.rename(data.with_name("moved"))
    assert counts(extract(replace(others, data=str(moved)))) == {"rows": 3, "computed": 2, "reused": 1, "dropped": 1}
    assert counts(extract(replace(some, data=str(moved)))) == {"rows": 2, "reused": 2, "dropped": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"store": "int8"},
        {"precision": "fp8"},
        {"workers": 0},
        {"batch_size": 0},
        {"name": "a" * 300},
        {"only": frozenset()},
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(spec, wrong):
    with pytest.raises(OptionError):
        replace(spec, **wrong)


def test_slow_work_becomes_a_shard_every_so_often(spec, monkeypatch):
    expected = rows_of(features_of(extract(replace(spec, name="fast"))))
    monkeypatch.setattr(job, "SHARD_ROWS", 8)
    monkeypatch.setattr("extract.shard.SHARD_S", 0)
    done = extract(replace(spec, batch_size=3))
    assert counts(done) == {"rows": 8, "computed": 8}
    assert sorted(map(rows_in, shards_of(done))) == [2, 3, 3]
    assert_same_rows(rows_of(features_of(done)), expected)


@pytest.fixture
def settled(data) -> Path:
    """A folder whose files are old enough that any change to them shows."""
    time.sleep(1.5 * FINE_NS / 1e9)
    return data


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The ids of the images that are read; the golden ones are left out."""
    monkeypatch.setattr(golden, "prove", lambda *_: None)
    seen: list[str] = []
    read, submit = contents.read_bytes, InProcess.submit
    monkeypatch.setattr(contents, "read_bytes", lambda record, most: seen.append(record.id) or read(record, most))
    monkeypatch.setattr(InProcess, "submit", lambda self, record: seen.append(record.id) or submit(self, record))
    return seen


def test_nothing_is_read_and_nothing_is_written_where_nothing_changed(spec, settled, reads):
    extract(spec)
    assert len(reads) == 16, "once to know it, and once to compute it"
    before = files_in(spec.cache)
    reads.clear()
    done = extract(spec)
    assert counts(done) == {"rows": 8, "reused": 8}
    assert reads == []
    assert files_in(spec.cache) == before


def test_another_recipe_knows_the_files_too(spec, settled, reads):
    extract(spec)
    reads.clear()
    extract(replace(spec, taps=("layer2",)))
    assert sorted(reads) == sorted(
        f"{name}/{i:02}.{('png', 'jpg')[i % 2]}" for name in ("cat", "dog") for i in range(4)
    )


def test_rehash_distrusts_what_is_known(spec, settled, reads):
    extract(spec)
    image = settled / "cat/00.png"
    forged = image.read_bytes()
    known = read_known(spec.cache / "pets/contents.h5").by_id
    image.write_bytes(forged[:-1] + b"?")
    signature = signature_of(Record("cat/00.png", str(image)))
    write_known(spec.cache / "pets/contents.h5", known | {"cat/00.png": (signature, known["cat/00.png"][1])})
    assert counts(extract(spec)) == {"rows": 8, "reused": 8}
    reads.clear()
    assert counts(extract(replace(spec, rehash=True))) == {"rows": 8, "computed": 1, "reused": 7}
    assert set(reads) >= {"cat/00.png", "dog/00.png"}


def test_a_same_size_file_in_the_place_of_another_is_seen(spec, settled, tmp_path):
    before = rows_of(features_of(extract(spec)))
    one, other = settled / "cat/00.png", settled / "dog/00.png"
    size = max(len(one.read_bytes()), len(other.read_bytes()))
    status = one.stat()
    one.write_bytes(other.read_bytes().ljust(size, b"\0")[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = extract(spec)
    assert done["computed"] == 1
    assert one.stat().st_size == status.st_size
    assert not np.array_equal(rows_of(features_of(done))["cat/00.png"], before["cat/00.png"])


def test_a_moved_folder_is_not_even_read(spec, settled, reads, tmp_path):
    extract(spec)
    reads.clear()
    moved = settled.rename(tmp_path / "moved")
    assert counts(extract(replace(spec, data=str(moved), name="pets"))) == {"rows": 8, "reused": 8}
    assert reads == []


def test_a_note_that_cannot_be_kept_costs_a_second_read_and_no_more(spec, settled, monkeypatch, caplog):
    def refuse(*_: object) -> None:
        raise StoreError("cannot be written", where="here")

    monkeypatch.setattr(job, "write_known", refuse)
    assert counts(extract(spec)) == {"rows": 8, "computed": 8}
    assert "The next run will read all files again" in caplog.text
    assert counts(extract(spec)) == {"rows": 8, "reused": 8}


def test_retry_failed_computes_bad_rows_again_and_no_other(spec, data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(images, "MAX_PIXELS", 1)
        patch.setattr(golden, "prove", lambda *_: None)  # its images are no smaller
        assert counts(extract(spec)) == {"rows": 8, "computed": 8, "bad": 8}
        assert counts(extract(spec)) == {"rows": 8, "reused": 8, "bad": 8}
    (data / "cat/bad.png").write_bytes(b"words")
    assert counts(extract(spec)) == {"rows": 9, "computed": 1, "reused": 8, "bad": 9}
    done = extract(replace(spec, retry_failed=True))
    assert counts(done) == {"rows": 9, "computed": 9, "bad": 1}
    assert counts(extract(replace(spec, retry_failed=True))) == {"rows": 9, "computed": 1, "reused": 8, "bad": 1}
    assert features_of(done).status.tolist() == [0, 0, 0, 0, Status.NOT_AN_IMAGE, 0, 0, 0, 0]


def test_a_miss_is_explained_by_the_nearest_recipe(spec):
    first = extract(spec)
    assert first["miss"] is None
    extract(replace(spec, taps=("layer2", "layer3"), store="float16"))
    heard: list[str] = []

    class Listener(Silent):
        def note(self, text: str) -> None:
            heard.append(text)

    backbone = replace(spec.backbone, overrides=(("resize_size", 40),))
    done = extract(replace(spec, backbone=backbone), Listener())
    assert done["miss"] == {"nearest": first["features"], "differs_in": ["resize_size 32 -> 40"]}
    assert heard == [f"new features: {first['features']} differs in: resize_size 32 -> 40"]
    assert extract(replace(spec, backbone=backbone))["miss"] is None
    some = replace(spec, taps=("layer1",), only=frozenset({"cat/00.png"}), name="some")
    assert extract(some, Listener())["miss"] is None
    assert extract(replace(some, backbone=backbone), Listener())["miss"] is not None
    assert len(heard) == 1


def test_one_extraction_of_a_feature_set_at_a_time(spec, data):
    done = extract(spec)
    with held(lock_of(Path(done["path"]).parent), wait=False, on_wait=print):
        put(data / "cat/new.png", 50)
        with pytest.raises(StoreError, match=rf"process {os.getpid()} on .* is at work on it. Wait for it with --wait"):
            extract(spec)
        assert len(features_of(done)) == 8
        assert dry_run(spec)["to_compute"] == 1
        assert counts(extract(replace(spec, taps=("layer2",)))) == {"rows": 9, "computed": 9}
        waiting = threading.Thread(target=extract, args=[replace(spec, wait=True)])
        waiting.start()
    waiting.join()
    assert counts(extract(spec)) == {"rows": 9, "reused": 9}


def test_who_waited_computes_only_what_is_still_missing(spec, monkeypatch):
    results: list[dict[str, Any]] = []
    spec = replace(spec, wait=True)
    extractor = story.build_extractor(spec)
    monkeypatch.setattr(story, "build_extractor", lambda _: extractor)  # torch.fx traces for all threads of a process
    both = [threading.Thread(target=lambda: results.append(extract(spec))) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sorted(done["computed"] for done in results) == [0, 8]


def test_an_interrupt_says_what_is_kept_and_the_next_run_goes_on(spec, monkeypatch):
    expected = rows_of(features_of(extract(replace(spec, name="clean"))))

    class Listener(Silent):
        def __init__(self) -> None:
            self.rows = 0

        def advance(self, steps: int, bad: int = 0) -> None:
            self.rows += steps
            if self.rows == 8 + 4:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=r"interrupted: 4 of 8 rows are kept.*Run the same command again"):
        extract(replace(spec, batch_size=1), Listener())
    done = extract(spec)
    assert counts(done) == {"rows": 8, "computed": 4, "reused": 4}
    assert_same_rows(rows_of(features_of(done)), expected)


def test_a_read_only_cache_answers_where_nothing_is_to_be_done(spec, settled, monkeypatch):
    extract(spec)
    real = os.open

    def refuse(path: object, flags: int, *rest: int, **named: int) -> int:
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(spec.cache)):
            raise PermissionError(errno.EROFS, "Read-only file system")
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    assert counts(extract(spec)) == {"rows": 8, "reused": 8}
    put(settled / "cat/new.png", 50)
    with pytest.raises(StoreError, match=r"Read-only file system.*another --cache"):
        extract(spec)


def test_images_that_are_out_of_reach_do_not_cost_their_rows(spec, data, tmp_path):
    listed = replace(spec, data=as_csv(data, data.parent / "pets-csv.csv"))
    before = rows_of(features_of(extract(listed)))
    away = data.rename(tmp_path / "away")
    with pytest.raises(StoreError, match=r"8 of 8 images that have their rows cannot be read now.*Check the disk"):
        extract(listed)
    away.rename(data)
    done = extract(listed)
    assert counts(done) == {"rows": 8, "reused": 8}
    assert_same_rows(rows_of(features_of(done)), before)


def test_a_refused_extraction_removes_no_damaged_shard(spec, tmp_path):
    done = extract(spec)
    victim = shards_of(done)[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    other = tiny_folder(tmp_path / "other/pets", seed=500)
    with pytest.raises(StoreError, match="other images"):
        extract(replace(spec, data=str(other)))
    assert victim.exists()
    again = extract(spec)
    assert again["computed"] in (2, 3)
    assert_as_from_scratch(again, spec, tmp_path)


def test_an_interrupt_while_files_are_read_keeps_what_is_known_of_them(spec, settled, reads):
    class Listener(Silent):
        def advance(self, steps: int, bad: int = 0) -> None:
            if len(reads) >= 5:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        extract(replace(spec, workers=1), Listener())
    assert 1 <= len(read_known(spec.cache / "pets/contents.h5").by_id) < 8


def test_a_lost_tag_comes_back(spec):
    extract(spec)
    (spec.cache / "CACHEDIR.TAG").write_text("damaged")
    extract(spec)
    assert (spec.cache / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_a_very_long_name_of_a_folder_makes_a_name_that_is_one(spec, data, tmp_path):
    long = data.rename(tmp_path / ("a" * 150))
    done = extract(replace(spec, data=str(long)))
    assert open_features(done["features"], spec.cache).name == done["features"]


def test_ctrl_c_at_whatever_point_ends_the_engine_and_counts_what_it_has_written(monkeypatch):
    asked = SimpleNamespace(spec=None, extractor=None, folder=Path("x"), progress=Silent())
    plan = SimpleNamespace(shards=[], computed=3, reused=1)
    heard, written, told = [], [], set()

    def engine(*_: object) -> Iterator[SimpleNamespace]:
        heard.append("begun")
        try:
            for name in "ab":
                written.append(name)
                yield SimpleNamespace(rows=1, name=name)
        except KeyboardInterrupt:
            written.append("at work")
            yield SimpleNamespace(rows=1, name="at work")
            raise
        finally:
            heard.append("ended")

    monkeypatch.setattr(job, "engine_of", lambda _: engine)
    for nth in itertools.count(1):
        heard.clear()
        written.clear()
        try:
            if not interrupted(lambda: story.run_plan(asked, plan), ("extract/job.py",), nth):
                break
        except Interrupted as error:
            told.add((error.what, *written))
        assert heard in ([], ["begun", "ended"])
    assert told == {
        ("interrupted: 3 of 4 rows are kept", "a", "at work"),
        ("interrupted: 4 of 4 rows are kept", "a", "b", "at work"),
    }


def relayed(cache: Path, data: Path, root: Path) -> ExtractSpec:
    """An extraction whose shards come by a relay; without any to compute, nothing of Ray starts."""
    return tiny_spec(data, cache, engine=EngineSpec("ray", relay=f"file://{root}/relay"))


def put_there(root: Path, cache: Path) -> Path:
    """What actors have put on a relay before their driver was lost with its machine: shards and golden rows."""
    [folder] = cache.glob("pets/*/shards")
    there = root / "relay" / folder.relative_to(cache)
    shutil.copytree(folder, there)
    shutil.copy(folder.parent / "golden.h5", there.parent)
    return there


def test_on_a_new_machine_a_driver_goes_on_from_the_relay(tmp_path, monkeypatch):
    data = tiny_folder(tmp_path / "pets")
    before = extract(tiny_spec(data, tmp_path / "lost"))
    there = put_there(tmp_path, tmp_path / "lost")
    done = extract(relayed(tmp_path / "cache", data, tmp_path))
    assert (done["computed"], done["reused"]) == (0, 8)
    np.testing.assert_equal(rows_of(features_of(done)), rows_of(features_of(before)))
    for path in (*there.iterdir(), there.parent / "golden.h5"):
        assert (tmp_path / "cache" / path.relative_to(tmp_path / "relay")).read_bytes() == path.read_bytes()
    monkeypatch.setattr("extract.store.relay.Relay.fetch", lambda *_: pytest.fail("all of it is here"))
    assert extract(relayed(tmp_path / "cache", data, tmp_path))["computed"] == 0


def test_what_lies_damaged_on_the_relay_is_left_and_told(tmp_path, caplog):
    data = tiny_folder(tmp_path / "pets")
    extract(tiny_spec(data, tmp_path / "lost"))
    damaged, *whole = sorted(put_there(tmp_path, tmp_path / "lost").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1])
    opened = story.open_job(relayed(tmp_path / "cache", data, tmp_path), Silent())
    job.fetch_relayed(opened)
    assert {path.name for path in (opened.folder / "shards").iterdir()} == {path.name for path in whole}
    [told] = caplog.messages
    assert damaged.name in told
    assert damaged.exists()
