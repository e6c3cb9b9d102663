import dataclasses
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extract.errors import StoreError
from extract.recipe import Preprocessing, Recipe, Tap
from extract.record import Failure, Record, Status
from extract.store import FeatureSet, files, index, open_features, reader
from extract.store.index import FORMAT, FORMAT_VERSION, Entry, write_index
from extract.store.inventory import describe, inventory
from extract.store.sealed import seal
from extract.store.shards import Rows, read_shard, write_shard
from tests.extract.store.tiny_cache import SEEN, put_set, rows_of, values_of

PRESET = Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RECIPE = Recipe("builtin:x", "0" * 64, (Tap("a"), Tap("penultimate")), ("a", "b"), PRESET, "pillow", "fp32", "float32")
SHAPES = {"a": (2,), "penultimate": (3,)}


def content(i: int) -> bytes:
    return bytes([i + 1]) * 32


def shard_of(contents: list[int], *, bad: tuple[int, ...] = ()) -> Rows:
    """Rows whose every value is the number of their content; NaN where the content is bad."""
    values = np.array([np.nan if i in bad else i for i in contents], np.float32)[:, None]
    failures = [Failure(Status.DAMAGED, f"bad {i}") if i in bad else None for i in contents]
    digests = np.frombuffer(b"".join(map(content, contents)), np.uint8).reshape(-1, 32)
    return Rows({tap: np.repeat(values, width, 1) for tap, (width,) in SHAPES.items()}, digests, failures)


def feature_set(cache: Path, entries: list[Entry], shards: list[Rows], recipe: Recipe = RECIPE) -> FeatureSet:
    folder = cache / "set" / recipe.key[:12]
    names = [write_shard(folder / "shards", rows, recipe.key) for rows in shards]
    write_index(
        folder / "features.h5",
        recipe,
        entries,
        [read_shard(folder / "shards" / n, recipe.key) for n in names],
        SHAPES,
        "/data",
    )
    return FeatureSet(folder / "features.h5")


def entry(i: int, name: str = "", **known: str) -> Entry:
    return Entry(Record(name or f"{i}.png", f"/data/{i}.png", **known), content(i))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.lists(st.integers(0, 9), min_size=1, max_size=25),
    cut=st.integers(1, 9),
    bad=st.sets(st.integers(0, 9), max_size=3),
)
def test_every_row_is_that_of_its_content_in_any_order(tmp_path_factory, order, cut, bad):
    shards = [shard_of(list(range(cut)), bad=tuple(bad)), shard_of(list(range(cut, 10)), bad=tuple(bad))]
    entries = [entry(i, f"{row}.png") for row, i in enumerate(order)]
    features = feature_set(tmp_path_factory.mktemp("set"), entries, shards)
    expected = np.array([np.nan if i in bad else i for i in order], np.float32)
    for tap, (width,) in SHAPES.items():
        np.testing.assert_array_equal(features.read(tap), np.repeat(expected[:, None], width, 1))
        with h5py.File(features.path) as file:
            np.testing.assert_array_equal(file[f"layers/{tap}"][:], np.repeat(expected[:, None], width, 1))
    rows = np.arange(len(order))[::-2]
    np.testing.assert_array_equal(features.read("a", rows)[:, 0], expected[rows])
    assert features.status.tolist() == [Status.DAMAGED if i in bad else Status.OK for i in order]
    assert features.errors == [f"bad {i}" if i in bad else "" for i in order]
    assert [digest.tobytes() for digest in features.sha256] == [content(i) for i in order]


@pytest.mark.parametrize("few_rows", [0, 1024])
@pytest.mark.parametrize("store", ["float32", "float16"])
def test_maps_and_views_are_read_as_they_were_computed(tmp_path, monkeypatch, store, few_rows):
    monkeypatch.setattr(reader, "FEW_ROWS", few_rows)
    contents, bad = [4, 0, 1, 2, 5], [1]
    features = FeatureSet(put_set(tmp_path, [[4, 0, 1], [2, 5]], dataclasses.replace(SEEN, store=store), bad=bad).index)
    assert (features.layers, features.views) == (["a:map", "penultimate"], 3)
    assert list(features.shapes) == features.recipe.layers
    assert {features.shapes[layer] for layer in ("a:map", "a:map@1", "a:map@2")} == {(2, 3, 1)}
    with h5py.File(features.path) as file:
        assert sorted(file["layers"]) == sorted(features.recipe.layers)
        assert file["features"] == file["layers/penultimate"]
        for layer in features.recipe.layers:
            expected = values_of(contents, layer, bad=bad).astype(np.float32)
            rows = features.read(layer)
            assert rows.dtype == np.float32
            np.testing.assert_array_equal(rows, expected)
            np.testing.assert_array_equal(file[f"layers/{layer}"][:], expected)
            np.testing.assert_array_equal(features.read(layer, [3, 3, 0]), expected[[3, 3, 0]])


@pytest.mark.parametrize("store", ["float32", "float16"])
def test_one_row_is_seen_as_it_is_stored(tmp_path, store):
    features = FeatureSet(put_set(tmp_path, [[0, 1], [2]], dataclasses.replace(SEEN, store=store), bad=[1]).index)
    features._shard = np.array([-1, *features._shard[1:]])  # as of an image that has no row
    for layer in features.recipe.layers:
        for row in range(3):
            seen = features.stored_row(layer, row)
            assert seen.dtype == store
            assert seen.flags.writeable == (row == 0)
            np.testing.assert_array_equal(seen.astype(np.float32), features.read(layer, [row])[0])
        assert np.isnan(features.stored_row(layer, 0)).all()


@pytest.mark.parametrize("layer", ["penultimate@3", "penultimate@0", "penultimate@", "a", "a:map@-1", ""])
def test_a_view_that_is_not_stored_is_refused_with_those_that_are(tmp_path, layer):
    features = FeatureSet(put_set(tmp_path, [[0]], SEEN).index)
    said = rf"no layer '{layer}'.*Further views of each end in @1 to @2\. Known: a:map, penultimate$"
    for look in (features.read, lambda name: next(features.batches(name, 1)), features.check_layer):
        with pytest.raises(StoreError, match=said):
            look(layer)


def test_maps_come_with_labels_and_in_batches(tmp_path):
    features = FeatureSet(put_set(tmp_path, [[0, 1, 2], [3, 4]], SEEN, bad=[1]).index)
    X, y, ids = features.load("a:map@2")
    np.testing.assert_array_equal(X, values_of([0, 2, 3, 4], "a:map@2"))
    assert (y.tolist(), ids) == (features.labels[[0, 2, 3, 4]].tolist(), ["0.png", "2.png", "3.png", "4.png"])
    batches = [X for X, _ in features.batches("a:map@2", 3)]
    assert [X.shape for X in batches] == [(3, 2, 3, 1), (1, 2, 3, 1)]
    np.testing.assert_array_equal(np.concatenate(batches), X)


def test_a_map_is_primary_where_there_is_nothing_else(tmp_path):
    recipe = dataclasses.replace(SEEN, taps=SEEN.taps[:1], nodes=SEEN.nodes[:1])
    features = FeatureSet(put_set(tmp_path, [[0, 1]], recipe).index)
    np.testing.assert_array_equal(features.load()[0], values_of([0, 1], "a:map"))
    with h5py.File(features.path) as file:
        assert file["features"] == file["layers/a:map"]


def test_maps_of_images_without_a_shard_are_nan(tmp_path):
    gone = Entry(Record("gone.png", "/x"), Failure(Status.MISSING, "no such file"))
    path = tmp_path / "set" / SEEN.key[:12] / "features.h5"
    write_index(path, SEEN, [gone], [], {"a:map": (2, 3, 1), "penultimate": (3,)}, "/data")
    features = FeatureSet(path).check()
    for layer, shape in (("a:map@1", (1, 2, 3, 1)), ("penultimate", (1, 3))):
        assert features.read(layer).shape == shape
        assert np.isnan(features.read(layer)).all()
    with h5py.File(path) as file:
        assert np.isnan(file["layers/a:map@1"][:]).all()


def test_a_shard_without_a_view_is_an_error(tmp_path):
    rows = rows_of([0, 1], SEEN)
    del rows.layers["a:map@2"]
    folder = tmp_path / "set" / SEEN.key[:12]
    name = write_shard(folder / "shards", rows, SEEN.key)
    shard = read_shard(folder / "shards" / name, SEEN.key)
    shapes = {"a:map": (2, 3, 1), "penultimate": (3,)}
    write_index(folder / "features.h5", SEEN, [entry(0)], [shard], shapes, "/data")
    features = FeatureSet(folder / "features.h5")
    assert features.read("a:map@1").shape == (1, 2, 3, 1)
    for look in (lambda: features.read("a:map@2"), lambda: features.check_layers(0)):
        with pytest.raises(StoreError, match=f"{name}: the shard is damaged: it holds no dataset 'layers/a:map@2'"):
            look()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(max_size=5), st.none() | st.text(max_size=5)), min_size=1, max_size=8))
def test_names_and_labels_survive(tmp_path_factory, said):
    said = [(os.fsdecode(os.fsencode(a.encode("utf-8", "replace"))), b) for a, b in said]
    said = [(a, b.encode("utf-8", "replace").decode() if b else b) for a, b in said]
    said = [(a, b) for a, b in said if "\0" not in a + (b or "")] or [("a", None)]
    entries = [
        Entry(Record(f"{i}{a}", "/x", label=b or None, split="train", group=a), content(0))
        for i, (a, b) in enumerate(said)
    ]
    features = feature_set(tmp_path_factory.mktemp("names"), entries, [shard_of([0])])
    assert features.ids == [f"{i}{a}" for i, (a, _) in enumerate(said)]
    assert features.groups == [a for a, _ in said]
    assert features.label_names == sorted({b for _, b in said if b})
    names = [features.label_names[i] if i >= 0 else None for i in features.labels]
    assert names == [b or None for _, b in said]


def test_a_name_that_is_no_utf_8_keeps_its_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    assert feature_set(tmp_path, [entry(0, name)], [shard_of([0])]).ids == [name]


def test_the_file_opens_for_anyone_from_anywhere(tmp_path, monkeypatch):
    entries = [entry(0, label="b", split="train"), entry(1, label="a", split="test")]
    features = feature_set(tmp_path, entries, [shard_of([0, 1])])
    monkeypatch.chdir("/")
    with h5py.File(features.path) as file:
        np.testing.assert_array_equal(file["features"][:], [[0, 0, 0], [1, 1, 1]])
        assert file["features"] == file["layers/penultimate"]
        assert file["filenames"].asstr()[:].tolist() == ["0.png", "1.png"]
        assert file["labels"][:].tolist() == [1, 0]
        assert file["label_names"].asstr()[:].tolist() == ["a", "b"]
        assert file["splits"].asstr()[:].tolist() == ["train", "test"]
        assert file["status"].dtype == np.uint8
        assert file.attrs["format"] == "offshelf-features"
        assert Recipe.from_json(file.attrs["recipe"]) == RECIPE


def test_a_missing_shard_is_an_error_to_us_and_nan_to_others(tmp_path):
    features = feature_set(tmp_path, [entry(0), entry(1)], [shard_of([0]), shard_of([1])])
    first = features.shards[0][0]
    (features.folder / "shards" / first).unlink()
    with pytest.raises(StoreError, match="the shard is missing"):
        features.read("a")
    with h5py.File(features.path) as file:
        assert np.isnan(file["features"][0]).all()
        assert file["features"][1].tolist() == [1, 1, 1]


def test_a_changed_shard_is_found_before_hdf5_reads_it(tmp_path):
    features = feature_set(tmp_path, [entry(0)], [shard_of([0])])
    [shard] = (features.folder / "shards").iterdir()
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        features.read("a")


def test_another_shard_under_the_name_is_found(tmp_path):
    features = feature_set(tmp_path, [entry(0)], [shard_of([0])])
    [shard] = (features.folder / "shards").iterdir()
    other = write_shard(tmp_path, shard_of([5]), RECIPE.key)
    (tmp_path / other).replace(shard)
    with pytest.raises(StoreError, match="damaged"):
        features.read("a")


def test_images_that_could_not_be_read_are_rows_with_a_reason(tmp_path):
    gone = Entry(Record("gone.png", "/x"), Failure(Status.MISSING, "no such file"))
    changed = entry(7, "changed.png")
    features = feature_set(tmp_path, [gone, entry(0), changed], [shard_of([0])])
    assert features.status.tolist() == [Status.MISSING, Status.OK, Status.MISSING]
    assert features.errors[0] == "no such file"
    assert "changed while it was read" in features.errors[2]
    assert np.isnan(features.read("a")[[0, 2]]).all()
    assert features.read("a")[1].tolist() == [0, 0]


def test_a_set_without_one_good_row_reads_as_nan(tmp_path):
    gone = Entry(Record("gone.png", "/x"), Failure(Status.MISSING, "no such file"))
    features = feature_set(tmp_path, [gone], [])
    assert features.read("penultimate").shape == (1, 3)
    with h5py.File(features.path) as file:
        assert np.isnan(file["features"][:]).all()


def test_the_same_rows_make_the_same_shard(tmp_path):
    first = write_shard(tmp_path, shard_of([0, 1]), RECIPE.key)
    assert write_shard(tmp_path, shard_of([0, 1]), RECIPE.key) == first
    assert write_shard(tmp_path, shard_of([1, 0]), RECIPE.key) != first
    assert write_shard(tmp_path, shard_of([0, 1]), "another") != first


def test_a_shard_of_another_recipe_is_refused(tmp_path):
    name = write_shard(tmp_path, shard_of([0]), RECIPE.key)
    with pytest.raises(StoreError, match="of another recipe"):
        read_shard(tmp_path / name, "another")


OLD_RECIPE = json.dumps(
    {name: value for name, value in json.loads(RECIPE.to_json()).items() if name not in ("tf32", "views", "view_seed")}
    | {"schema_version": 1}
)


def test_an_index_of_another_version_is_refused_and_hides_no_other(tmp_path):
    features = feature_set(tmp_path, [entry(0)], [shard_of([0])])
    strange = tmp_path / "other" / "0123456789ab" / "features.h5"

    attributes = {"format": FORMAT, "format_version": FORMAT_VERSION, "recipe": OLD_RECIPE, "key": "0123456789ab"}
    files.publish(strange, seal("index", attributes, lambda _: None)[1])
    with pytest.raises(StoreError, match="a recipe of another version"):
        FeatureSet(strange)
    listed = inventory(tmp_path)
    assert [each["features"] for each in listed["feature_sets"]] == [features.name]
    assert [each["features"] for each in listed["damaged"]] == ["other/0123456789ab"]


def test_weights_that_were_changed_are_found(tmp_path):
    features = feature_set(tmp_path, [entry(0)], [shard_of([0])])
    with pytest.raises(StoreError, match="weights are missing or damaged"):
        features.check_weights()


def test_features_are_found_by_name_prefix_and_path(tmp_path):
    features = feature_set(tmp_path, [entry(0)], [shard_of([0])])
    key = features.recipe.key
    for text in ("set", f"set/{key[:4]}", f"set/{key[:12]}", str(features.path), str(features.folder)):
        assert open_features(text, tmp_path).path == features.path


def test_what_is_not_there_or_ambiguous_is_told(tmp_path):
    with pytest.raises(StoreError, match="no features 'set'"):
        open_features("set", tmp_path)
    feature_set(tmp_path, [entry(0)], [shard_of([0])])
    feature_set(tmp_path, [entry(0)], [shard_of([0])], dataclasses.replace(RECIPE, store="float16"))
    with pytest.raises(StoreError, match=r"'set' is 2 feature sets: set/\w{12} \(builtin:x, a, penultimate\); set/"):
        open_features("set", tmp_path)
    with pytest.raises(StoreError, match=r"no features 'sat' \(nearest: 'set'\)"):
        open_features("sat", tmp_path)


def test_an_index_in_the_folder_of_another_key_is_refused(tmp_path):
    features = feature_set(tmp_path, [entry(0)], [shard_of([0])])
    moved = features.folder.rename(features.folder.with_name("0" * 12))
    with pytest.raises(StoreError, match="do not belong together"):
        FeatureSet(moved / "features.h5")


def test_any_hdf5_file_is_not_an_index(tmp_path):
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(StoreError, match="no index of offshelf"):
        FeatureSet(tmp_path / "features.h5")


def test_the_inventory_counts_rows_and_names_what_is_bad(tmp_path):
    features = feature_set(tmp_path, [entry(0), entry(1)], [shard_of([0, 1], bad=(1,))])
    [listed] = inventory(tmp_path)["feature_sets"]
    assert (listed["features"], listed["rows"], listed["bad"]) == (features.name, 2, 1)
    described = describe("set", tmp_path)
    assert described["bad_rows"] == [{"id": "1.png", "status": "damaged", "reason": "bad 1"}]
    assert described["recipe"]["model"] == "builtin:x"


def test_an_index_that_nobody_could_read_is_not_written_over_one_that_can(tmp_path, monkeypatch):
    features = feature_set(tmp_path, [Entry(Record("0.png", ""), content(0))], [shard_of([0])])
    before = features.path.read_bytes()
    monkeypatch.setattr(index, "MAX_BYTES", len(before))
    many = [Entry(Record(f"{i}.png", ""), content(0)) for i in range(500)]
    with pytest.raises(StoreError, match=r"an index of 500 rows is too large to be read.*Part DATA"):
        feature_set(tmp_path, many, [shard_of([0])])
    assert features.path.read_bytes() == before
    FeatureSet(features.path)
    monkeypatch.setattr(index, "MAX_BYTES", len(before) - 1)
    with pytest.raises(StoreError, match="bytes are too many"):
        FeatureSet(features.path)
