import json
import os
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import pytest

from extract.errors import StoreError
from extract.store import index
from extract.store.inventory import describe, inventory
from tests.extract.store.tiny_cache import HALF, RECIPE, SEEN, WRITER, flip, put_set, put_shard


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waits for the disk, which nothing here can tell


def made(monkeypatch, hours_ago: int) -> None:
    """Let what is written from now on say that it was made so long ago."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(hours=hours_ago)

    monkeypatch.setattr(index, "datetime", Clock)


def test_the_recipes_of_a_data_set_stand_together_and_the_newest_last(tmp_path, monkeypatch):
    expected = []
    for name, recipe, hours_ago in (("b", RECIPE, 2), ("b", HALF, 50), ("a", HALF, 1), ("a", RECIPE, 30)):
        made(monkeypatch, hours_ago)
        expected.append((put_set(tmp_path, [[0, 1, 2], [3]], recipe, name=name, bad=[3]), hours_ago))
    listed = inventory(tmp_path)["feature_sets"]
    assert [each["features"] for each in listed] == [expected[i][0].name for i in (3, 2, 1, 0)]
    for each, i in zip(listed, (3, 2, 1, 0), strict=True):
        folder, hours_ago = expected[i]
        assert each["age_s"] == pytest.approx(3600 * hours_ago, abs=60)
        assert datetime.fromisoformat(each["created"]).tzinfo == UTC
        assert each["bytes"] == sum(path.stat().st_size for path in folder.path.rglob("*") if path.is_file())
        assert (each["rows"], each["bad"], each["classes"]) == (4, 1, 2)
        assert each["layers"] == ["a:gem", "penultimate"]


def test_damaged_and_unfinished_feature_sets_stand_apart(tmp_path):
    sound = put_set(tmp_path, [[0]], name="sound")
    broken, begun = put_set(tmp_path, [[0]], name="broken"), put_set(tmp_path, [[0]], name="begun")
    flip(broken.index, "labels", "index")
    begun.index.unlink()
    found = inventory(tmp_path)
    assert [each["features"] for each in found["feature_sets"]] == [sound.name]
    what = "the index is damaged: the SHA-256 of dataset 'labels' is not the recorded one"
    assert found["damaged"] == [{"features": broken.name, "path": str(broken.index), "what": what}]
    n_bytes = sum(path.stat().st_size for path in begun.path.rglob("*") if path.is_file())
    assert found["unfinished"] == [{"features": begun.name, "path": str(begun.path), "bytes": n_bytes}]


@pytest.mark.parametrize("said", ["", "yesterday", "0001-01-01T00:00:00+23:59"])
def test_an_index_that_does_not_say_when_it_was_made_is_damaged(tmp_path, monkeypatch, said):
    attributes = index._attributes
    monkeypatch.setattr(index, "_attributes", lambda *given: {**attributes(*given), "created": said})
    put_set(tmp_path, [[0]])
    [damaged] = inventory(tmp_path)["damaged"]
    assert damaged["what"] == "the index is damaged: it does not say when it was made"


def test_a_feature_set_is_described_down_to_its_shards_and_who_wrote_them(tmp_path):
    folder = put_set(tmp_path, [[0, 1, 2, 3, 4], [6]], bad=[1, 4])
    put_shard(folder, [8])
    found = describe("set", tmp_path)
    shards = sorted(found["shards"], key=lambda shard: shard["rows"])
    assert [(shard["rows"], shard["used"]) for shard in shards] == [(1, 1), (5, 5)]
    for shard in shards:
        path = folder.path / "shards" / shard["name"]
        assert shard["bytes"] == path.stat().st_size
        assert shard["name"] == f"{shard['sha256'][:32]}.h5"
    assert found["writers"] == [{"writer": json.loads(WRITER), "shards": 2, "rows": 6}]
    assert found["versions"]["numpy"] == version("numpy")
    assert found["label_counts"] == {"": 1, "cat": 3, "dog": 2}
    assert found["split_counts"] == {"": 1, "test": 2, "train": 3}
    assert found["recipe"] == json.loads(RECIPE.to_json())
    assert found["bad_rows"] == [
        {"id": "1.png", "status": "damaged", "reason": "bad 1"},
        {"id": "4.png", "status": "damaged", "reason": "bad 4"},
    ]


def test_maps_and_views_are_described(tmp_path):
    put_set(tmp_path, [[0, 1]], SEEN)
    found = describe("set", tmp_path)
    assert (found["layers"], found["views"]) == (["a:map", "penultimate"], 3)
    assert json.loads(json.dumps(found["shapes"])) == {
        f"{tap}{end}": shape for end in ("", "@1", "@2") for tap, shape in (("a:map", [2, 3, 1]), ("penultimate", [3]))
    }


def test_rows_that_images_share_count_once(tmp_path):
    put_set(tmp_path, [[0, 1], [0, 2]])
    found = describe("set", tmp_path)
    assert found["rows"] == 4
    assert sorted((shard["rows"], shard["used"]) for shard in found["shards"]) == [(2, 1), (2, 2)]


def test_it_does_not_look_at_the_rows_themselves_but_at_the_files(tmp_path):
    folder = put_set(tmp_path, [[0, 1]])
    [shard] = (folder.path / "shards").iterdir()
    flip(shard, "layers/penultimate")
    assert describe("set", tmp_path)["rows"] == 2
    shard.unlink()
    with pytest.raises(StoreError, match="the shard is missing"):
        describe("set", tmp_path)
