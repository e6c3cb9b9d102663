import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from extract.errors import StoreError
from extract.store import FeatureSet, files, sealed
from extract.store.folders import SetFolder, list_folders
from extract.store.housekeeping import choose_to_remove, collect_garbage, remove, size_of
from extract.store.lock import held
from tests.extract.store.tiny_cache import HALF, flip, put_set, put_shard
from tests.tiny import files_in

OLD, NEW = 1_700_000_000, 1_900_000_000


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waits for the disk, which nothing here can tell


@pytest.fixture
def folder(tmp_path) -> SetFolder:
    return put_set(tmp_path, [[0, 1, 2], [3, 4]])


@pytest.fixture
def needless(folder, tmp_path) -> dict[Path, str]:
    """One file of every kind that is kept in vain."""
    unused, unfinished = (put_shard(folder, contents) for contents in ([5, 6], [7]))
    os.utime(unused, (OLD, OLD))
    os.utime(unfinished, (NEW, NEW))
    foreign, words = put_shard(folder, [0], HALF), folder.path / "shards" / "words.h5"
    words.write_bytes(b"words")
    (folder.path / "fits").mkdir()
    inside = (folder.path, folder.path / "shards", folder.path / "fits")
    temporaries = [at / ".tmp-x" for at in (tmp_path, tmp_path / "set", *inside)]
    for path in (*temporaries, folder.lock):
        path.write_bytes(b"left")
    found = {unused: "unused", unfinished: "unfinished", foreign: "foreign", words: "foreign", folder.lock: "lock"}
    return found | dict.fromkeys(temporaries, "temporary")


def kinds(found: dict) -> dict[Path, str]:
    return {Path(item["path"]): item["kind"] for item in found["items"]}


def test_a_whole_cache_keeps_nothing_in_vain(folder, tmp_path):
    before = files_in(tmp_path)
    found = collect_garbage([], tmp_path, delete=True, unfinished=True)
    assert found == {
        "cache": str(tmp_path),
        "dry_run": False,
        "items": [],
        "bytes": 0,
        "busy": [],
        "damaged": [],
    }
    assert files_in(tmp_path) == before


def test_a_dry_run_lists_what_is_needless_and_touches_nothing(needless, tmp_path):
    before = files_in(tmp_path)
    found = collect_garbage([], tmp_path)
    assert found["dry_run"]
    assert kinds(found) == needless
    assert {item["kind"]: item["rows"] for item in found["items"]} == {
        "unused": 2,
        "unfinished": 1,
        "foreign": None,
        "temporary": None,
        "lock": None,
    }
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("unfinished", [False, True])
def test_deleting_takes_what_is_needless_and_what_is_unfinished_only_if_asked(folder, needless, tmp_path, unfinished):
    sizes = {path: path.stat().st_size for path in needless if path != folder.lock}
    expected = FeatureSet(folder.index).read("penultimate")
    found = collect_garbage([], tmp_path, delete=True, unfinished=unfinished)
    gone = {path for path, kind in needless.items() if unfinished or kind != "unfinished"}
    assert kinds(found) == needless
    assert {Path(item["path"]) for item in found["items"] if item["delete"]} == gone
    assert {path for path in needless if not path.exists()} == gone
    assert found["bytes"] == sum(sizes.get(path, 0) for path in gone)
    assert (FeatureSet(folder.index).check().read("penultimate") == expected).all()


def test_what_fits_have_kept_stays_and_goes_with_its_feature_set(folder, tmp_path):
    fits = folder.path / "fits"
    fits.mkdir()
    (fits / "0.fit").write_bytes(b"kept")
    collect_garbage([], tmp_path, delete=True, unfinished=True)
    assert (fits / "0.fit").exists()
    before = size_of([folder])
    (fits / "1.fit").write_bytes(b"more")
    assert size_of([folder]) == before + 4
    assert removed(["set"], tmp_path)["left"] == []
    assert not (tmp_path / "set").exists()


@pytest.fixture
def training(folder) -> Path:
    """How far a training has come, and what a killed one left."""
    path = folder.path / "training" / "0123456789abcdef" / "state.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    path.with_name(".tmp-state.ckpt-0").write_bytes(b"left")
    return path


def test_how_far_trainings_have_come_goes_only_if_asked_and_leaves_no_folder(folder, training, tmp_path):
    found = collect_garbage([], tmp_path, delete=True)
    assert kinds(found) == {training: "unfinished", training.with_name(".tmp-state.ckpt-0"): "temporary"}
    assert (found["bytes"], training.exists()) == (4, True)
    assert collect_garbage([], tmp_path, delete=True, unfinished=True)["bytes"] == 7
    assert not (folder.path / "training").exists()
    assert FeatureSet(folder.index).check()


def test_trainings_go_with_their_feature_set(folder, training, tmp_path):
    before = size_of([folder])
    training.write_bytes(b"more weights")
    assert size_of([folder]) == before + 5
    assert removed(["set"], tmp_path)["left"] == []
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("linked", ["training", "training/0123456789abcdef"])
def test_nothing_is_deleted_through_a_link_to_trainings(folder, training, tmp_path, tmp_path_factory, linked):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "mine"
    (folder.path / linked).rename(elsewhere)
    (folder.path / linked).symlink_to(elsewhere)
    before = files_in(elsewhere)
    assert collect_garbage([], tmp_path, delete=True, unfinished=True)["items"] == []
    with pytest.raises(StoreError, match="a symbolic link leads to other folders"):
        choose_to_remove(["set"], tmp_path, every=False)
    assert files_in(elsewhere) == before


def test_nothing_is_deleted_through_a_link_to_fits(folder, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "0.fit").write_bytes(b"mine")
    (folder.path / "fits").symlink_to(elsewhere)
    with pytest.raises(StoreError, match="a symbolic link leads to other folders"):
        choose_to_remove(["set"], tmp_path, every=False)
    assert (elsewhere / "0.fit").exists()


def test_without_an_index_all_rows_wait_for_the_next_extraction(folder, tmp_path):
    folder.index.unlink()
    found = collect_garbage([], tmp_path, delete=True)
    assert {item["kind"] for item in found["items"]} == {"unfinished"}
    assert sum(item["rows"] for item in found["items"]) == 5
    assert found["bytes"] == 0
    assert collect_garbage([], tmp_path, delete=True, unfinished=True)["bytes"] > 0
    assert not list((folder.path).glob("shards/*"))


def test_what_a_damaged_index_names_is_left_alone(folder, tmp_path):
    put_shard(folder, [9])
    flip(folder.index, "labels", "index")
    before = files_in(tmp_path)
    found = collect_garbage([], tmp_path, delete=True, unfinished=True)
    assert found["items"] == []
    [damaged] = found["damaged"]
    assert damaged["features"] == folder.name
    assert "'labels'" in damaged["what"]
    assert files_in(tmp_path) == before


def test_what_the_disk_cannot_read_stays(folder, tmp_path, monkeypatch):
    stray = put_shard(folder, [9])
    table_of = sealed.read_table

    def fail(file, path: Path, kind: str):
        if path == stray:
            raise OSError(5, "Input/output error")
        return table_of(file, path, kind)

    monkeypatch.setattr(sealed, "read_table", fail)
    [item] = collect_garbage([], tmp_path, delete=True, unfinished=True)["items"]
    assert (item["kind"], item["delete"]) == ("unreadable", False)
    assert stray.exists()


@pytest.mark.parametrize("delete", [False, True])
def test_a_feature_set_that_somebody_works_on_is_left_alone_and_told(folder, needless, tmp_path, delete):
    other = put_set(tmp_path, [[0]], name="other")
    (other.path / ".tmp-y").write_bytes(b"left")
    folder.lock.unlink()
    with held(folder.lock, wait=False, on_wait=print):
        found = collect_garbage([], tmp_path, delete=delete)
    assert kinds(found) == {other.path / ".tmp-y": "temporary"}
    [busy] = found["busy"]
    assert busy["features"] == folder.name
    assert busy["what"].startswith(f"process {os.getpid()} on ")
    assert busy["what"].endswith(" is at work on it")
    assert (folder.path / ".tmp-x").exists()


def test_one_feature_set_can_be_named(folder, needless, tmp_path):
    other = put_set(tmp_path, [[0]], name="other")
    (other.path / ".tmp-y").write_bytes(b"left")
    assert kinds(collect_garbage(["other"], tmp_path, delete=True)) == {other.path / ".tmp-y": "temporary"}
    assert (folder.path / ".tmp-x").exists()


def test_a_lock_without_a_feature_set_goes(folder, tmp_path):
    alone = folder.path.with_name(f".{'0' * 12}.lock")
    alone.write_bytes(b"")
    assert kinds(collect_garbage([], tmp_path, delete=True)) == {alone: "lock"}
    assert not alone.exists()


def test_nothing_is_deleted_through_a_link(folder, tmp_path, tmp_path_factory):
    real = tmp_path_factory.mktemp("elsewhere") / "set"
    folder.path.rename(real)
    (real / ".tmp-x").write_bytes(b"left")
    folder.path.symlink_to(real)
    other = put_set(tmp_path, [[0]], name="other")
    (other.path / ".tmp-y").symlink_to(real / "recipe.json")
    (other.path / "shards" / "link.h5").symlink_to(real / "recipe.json")
    assert collect_garbage([], tmp_path, delete=True, unfinished=True)["items"] == []
    with pytest.raises(StoreError, match="a symbolic link leads to other folders"):
        choose_to_remove(["set"], tmp_path, every=False)
    assert (real / ".tmp-x").exists()


@pytest.mark.parametrize("tag", [None, b"", b"Signature: 8a477f597d28d172789f06886806bc55\n# of another program\n"])
def test_nothing_is_deleted_in_a_folder_that_is_no_cache_of_ours(folder, needless, tmp_path, tag):
    (tmp_path / "CACHEDIR.TAG").unlink()
    if tag is not None:
        (tmp_path / "CACHEDIR.TAG").write_bytes(tag)
    for features in ([], ["set"], [str(folder.path)]):
        with pytest.raises(StoreError, match="no cache of offshelf"):
            collect_garbage(features, tmp_path, delete=True)
    with pytest.raises(StoreError, match="no cache of offshelf"):
        choose_to_remove(["set"], tmp_path, every=False)
    assert all(path.exists() for path in needless)


def removed(features: Sequence[str], cache: Path, *, every: bool = False) -> dict:
    return remove(choose_to_remove(features, cache, every=every))


def test_the_last_feature_set_goes_with_all_that_is_known_of_its_images(folder, needless, tmp_path):
    folder.lock.unlink()
    (tmp_path / "set" / ".tmp-x").unlink()
    everything = [path for path in (tmp_path / "set").rglob("*") if path.is_file()]
    n_bytes = sum(path.stat().st_size for path in everything)
    known = (tmp_path / "set" / "contents.h5").stat().st_size
    assert size_of(list_folders(tmp_path)) == n_bytes - known
    assert removed(["set"], tmp_path) == {"removed": [folder.name], "bytes": n_bytes, "left": []}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-x", "CACHEDIR.TAG"]


def test_the_index_goes_first_and_shards_before_the_rest(folder, tmp_path, monkeypatch):
    order = []
    real = Path.unlink

    def note(path: Path, missing_ok: bool = False) -> None:
        order.append(path.parent.name if path.parent.name == "shards" else path.name)
        real(path, missing_ok)

    monkeypatch.setattr(files.Path, "unlink", note)
    removed(["set"], tmp_path)
    assert order[:5] == ["features.h5", "shards", "shards", "golden.h5", "recipe.json"]


def test_a_name_of_several_feature_sets_goes_only_as_a_whole_if_asked(folder, tmp_path):
    other = put_set(tmp_path, [[0]], HALF)
    with pytest.raises(StoreError, match=rf"'set' is 2 feature sets: .*{folder.name}.*--all"):
        removed(["set"], tmp_path)
    assert removed([other.name], tmp_path)["removed"] == [other.name]
    assert FeatureSet(folder.index).check()
    assert (tmp_path / "set" / "contents.h5").exists()
    put_set(tmp_path, [[0]], HALF)
    assert sorted(removed(["set"], tmp_path, every=True)["removed"]) == sorted([folder.name, other.name])
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("damage", ["no index", "a damaged index", "an empty folder"])
def test_damaged_and_unfinished_feature_sets_can_be_removed(folder, tmp_path, damage):
    if damage == "a damaged index":
        folder.index.write_bytes(b"words")
    else:
        for path in folder.files() if damage == "an empty folder" else [folder.index]:
            path.unlink()
    assert removed(["set"], tmp_path)["left"] == []
    assert not (tmp_path / "set").exists()


def test_files_that_are_not_the_caches_stay_and_are_told(folder, tmp_path):
    notes, more, known = (folder.path / name for name in ("shards/notes.txt", "../more.txt", "../contents.h5"))
    more, known = more.resolve(), known.resolve()
    notes.write_text("mine")
    more.write_text("mine")
    assert removed(["set"], tmp_path)["left"] == [str(notes)]
    assert {path for path in (tmp_path / "set").rglob("*") if path.is_file()} == {notes, more, known}
    notes.unlink()
    assert removed(["set"], tmp_path)["left"] == [str(more)]
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["more.txt"]


def test_what_somebody_works_on_is_not_removed_and_nor_is_anything_else(folder, tmp_path):
    put_set(tmp_path, [[0]], name="another")
    before = files_in(tmp_path)
    with ExitStack() as stack:
        stack.enter_context(held(folder.lock, wait=False, on_wait=print))
        with pytest.raises(StoreError, match=r"process \d+ on .* is at work on it.*nothing is removed"):
            removed(["another", "set"], tmp_path)
    assert files_in(tmp_path) == before


def test_a_path_and_a_name_are_one_feature_set(folder, tmp_path):
    assert removed(["set", str(folder.path), str(folder.index)], tmp_path)["removed"] == [folder.name]
