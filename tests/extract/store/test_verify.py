import os
from pathlib import Path

import pytest

from extract.errors import StoreError
from extract.record import Record
from extract.store import whole
from extract.store.index import Entry, write_index
from extract.store.lock import held
from extract.store.shards import read_shard, write_shard
from extract.store.verify import verify
from tests.extract.store.tiny_cache import HALF, SEEN, SHAPES, content, flip, put_set, put_shard, rows_of
from tests.tiny import files_in

DATASETS = {
    "features.h5": ("index", "filenames"),
    "golden.h5": ("golden", "rows"),
    "../contents.h5": ("contents", "signatures"),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waits for the disk, which nothing here can tell


@pytest.fixture
def folder(tmp_path):
    return put_set(tmp_path, [[0, 1, 2], [3, 4]], bad=[4])


def shards_of(folder) -> list[Path]:
    return sorted((folder.path / "shards").iterdir())


def problems(cache: Path, **options) -> list[tuple[str, str | None, str]]:
    found = verify([], cache, **options)["problems"]
    return [(Path(each["file"]).name, each["dataset"], each["what"]) for each in found]


def test_a_whole_cache_is_whole_and_every_file_is_looked_at(folder, tmp_path):
    put_set(tmp_path, [[0, 1]], HALF)
    found = verify([], tmp_path, repair=True)
    everything = [path for path in (tmp_path / "set").rglob("*") if path.is_file()]
    assert found["problems"] == found["busy"] == []
    assert found["files"] == len(everything) == 6 + 5 + 1
    assert found["bytes"] == sum(path.stat().st_size for path in everything)
    assert found["features"] == sorted([folder.name, f"set/{HALF.key[:12]}"])


@pytest.mark.parametrize("name", DATASETS)
def test_what_is_damaged_is_named_with_its_dataset_and_removed_by_a_repair(folder, tmp_path, name):
    kind, dataset = DATASETS[name]
    path = (folder.path / name).resolve()
    flip(path, dataset, kind)
    what = f"the SHA-256 of dataset {dataset!r} is not the recorded one"
    assert problems(tmp_path) == [(path.name, dataset, what)]
    assert path.exists()
    [problem] = verify([], tmp_path, repair=True)["problems"]
    assert problem == {"file": str(path), "dataset": dataset, "what": what, "repaired": True}
    assert not path.exists()
    assert len(shards_of(folder)) == 2


@pytest.mark.parametrize(
    ("name", "what"),
    [("weights.safetensors", "the weights are damaged"), ("recipe.json", "it holds no recipe")],
)
def test_damaged_weights_and_recipes_are_found(folder, tmp_path, name, what):
    (folder.path / name).write_bytes((folder.path / name).read_bytes()[:-9])
    [(file, dataset, said)] = problems(tmp_path, repair=True)
    assert (file, dataset) == (name, None)
    assert said.startswith(what)
    assert problems(tmp_path) == [(name, None, f"the {name.split('.')[0]} {'are' if 'w' in name else 'is'} missing")]


def test_a_recipe_of_another_folder_is_found(folder, tmp_path):
    (folder.path / "recipe.json").write_text(HALF.to_json())
    assert problems(tmp_path) == [("recipe.json", None, "its recipe is not that of the folder")]


def test_two_datasets_of_a_shard_are_two_problems_of_one_file(folder, tmp_path):
    victim = shards_of(folder)[0]
    flip(victim, "layers/a:gem")
    flip(victim, "errors")
    assert {(file, dataset) for file, dataset, _ in problems(tmp_path)} == {
        (victim.name, "layers/a:gem"),
        (victim.name, "errors"),
    }
    verify(["set"], tmp_path, repair=True)
    assert problems(tmp_path) == [(victim.name, None, "the shard is missing")]


def test_maps_and_further_views_are_looked_at(tmp_path):
    folder = put_set(tmp_path, [[0, 1], [2]], SEEN)
    assert problems(tmp_path) == []
    for victim, dataset in zip(shards_of(folder), ("layers/a:map", "layers/penultimate@2"), strict=True):
        flip(victim, dataset)
    assert [(file, dataset) for file, dataset, _ in problems(tmp_path)] == [
        (victim.name, dataset)
        for victim, dataset in zip(shards_of(folder), ("layers/a:map", "layers/penultimate@2"), strict=True)
    ]


def test_a_whole_shard_without_one_of_the_layers_is_found_and_goes(tmp_path):
    folder, rows = put_set(tmp_path, [[0]], SEEN), rows_of([1, 2], SEEN)
    del rows.layers["penultimate@2"]
    bare = folder.path / "shards" / write_shard(folder.path / "shards", rows, SEEN.key)
    found = [read_shard(path, SEEN.key) for path in shards_of(folder)]
    write_index(folder.index, SEEN, [Entry(Record(f"{i}", "/x"), content(i)) for i in range(3)], found, SHAPES, "/data")
    what = "the shard is damaged: it holds no dataset 'layers/penultimate@2'"
    assert problems(tmp_path, repair=True) == [(bare.name, None, what)]
    assert not bare.exists()
    assert len(shards_of(folder)) == 1


def test_swapped_shards_are_found(folder, tmp_path):
    one, other = shards_of(folder)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    what = "the shard is damaged: its name is not that of its content"
    assert problems(tmp_path) == [(one.name, None, what), (other.name, None, what)]


def test_an_empty_shard_and_one_of_another_recipe_are_found_and_go(folder, tmp_path):
    empty = shards_of(folder)[0]
    empty.write_bytes(b"")
    other = put_shard(folder, [0], HALF)
    assert sorted(problems(tmp_path, repair=True)) == sorted(
        [(empty.name, None, "no shard of offshelf"), (other.name, None, "the shard is of another recipe")]
    )
    assert [path.exists() for path in (empty, other)] == [False, False]


def test_a_shard_that_no_index_names_is_looked_at_too(folder, tmp_path):
    stray = put_shard(folder, [7])
    assert problems(tmp_path) == []
    flip(stray, "layers/penultimate")
    assert [(file, dataset) for file, dataset, _ in problems(tmp_path)] == [(stray.name, "layers/penultimate")]


def test_a_first_extraction_that_was_interrupted_is_no_damage(tmp_path):
    folder = put_set(tmp_path, [[0, 1]])
    for name in ("features.h5", "recipe.json", "weights.safetensors"):
        (folder.path / name).unlink()
        assert problems(tmp_path) == []
    [shard] = shards_of(folder)
    flip(shard, "sha256")
    assert [file for file, *_ in problems(tmp_path)] == [shard.name]


def test_what_the_disk_cannot_read_may_be_whole_and_stays(folder, tmp_path, monkeypatch):
    def fail(*_: object) -> str:
        raise OSError(5, "Input/output error")

    before = files_in(tmp_path)
    monkeypatch.setattr(whole, "digest_of", fail)
    found = verify([], tmp_path, repair=True)["problems"]
    assert {each["what"] for each in found} == {
        f"the {kind} cannot be read (Input/output error)" for kind in ("index", "shard", "golden", "contents")
    }
    assert not any(each["repaired"] for each in found)
    assert files_in(tmp_path) == before


def test_an_index_of_another_version_is_told_and_stays(folder, tmp_path):
    moved = folder.path.rename(folder.path.with_name("0" * 12))
    found = verify([], tmp_path, repair=True)["problems"]
    assert found[0]["what"] == "the recipe and the key do not belong together"
    assert (moved / "features.h5").exists()


def test_where_somebody_is_at_work_nothing_is_repaired(folder, tmp_path):
    victim = shards_of(folder)[0]
    flip(victim, "status")
    with held(folder.lock, wait=False, on_wait=print):
        found = verify([], tmp_path, repair=True)
    assert [each["repaired"] for each in found["problems"]] == [False]
    [busy] = found["busy"]
    assert busy["features"] == folder.name
    assert f"process {os.getpid()} on" in busy["what"]
    assert victim.exists()


def test_feature_sets_are_named_by_name_key_and_path(folder, tmp_path):
    other = put_set(tmp_path, [[5]], HALF)
    third = put_set(tmp_path, [[5]], name="third")
    for said, names in (
        (["set"], [folder.name, other.name]),
        ([folder.name[:8]], [folder.name]),
        ([str(other.path), str(other.index)], [other.name]),
        (["third", "set"], [third.name, folder.name, other.name]),
        ([], [folder.name, other.name, third.name]),
    ):
        assert sorted(verify(said, tmp_path)["features"]) == sorted(names)
    with pytest.raises(StoreError, match="no features 'sat' \\(nearest: 'set'\\)"):
        verify(["sat"], tmp_path)
