"""Relays: what comes through one is proven, what goes wrong is told, and secrets are not."""

import errno
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import pipeline
from extract.errors import StoreError
from extract.store import files, relay
from extract.store.folders import GOLDEN, SetFolder
from extract.store.reader import WEIGHTS
from extract.store.relay import Relay
from extract.store.sealed import seal
from tests.extract.store.tiny_cache import HALF, RECIPE, put_set, put_shard

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def theirs(tmp_path) -> SetFolder:
    """What another machine has computed: two shards, the weights and the golden rows."""
    return put_set(tmp_path / "theirs", [[0, 1], [2]])


@pytest.fixture
def ours(tmp_path, theirs) -> Path:
    """The folder of the same features here, which is not there yet."""
    return tmp_path / "ours" / theirs.path.parent.name / theirs.path.name


@pytest.fixture
def name(theirs) -> str:
    """The name of a shard in its feature set."""
    return f"shards/{min(path.name for path in (theirs.path / 'shards').iterdir())}"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(relay, "PAUSES_S", (0.0, 0.0))


def open_relay(root: Path, folder: Path) -> Relay:
    return Relay(f"file://{root}/relay", folder)


def put_there(root: Path, theirs: SetFolder, name: str) -> tuple[Relay, Path]:
    """A relay with one shard, and the file that this is there."""
    opened = open_relay(root, theirs.path)
    opened.put(name, theirs.path / name)
    return opened, root / "relay" / theirs.path.parent.name / theirs.path.name / name


@pytest.mark.parametrize("url", ["file://{}/relay", "memory://{}/relay/"])
def test_what_is_put_there_comes_to_others_as_it_was(tmp_path, theirs, ours, name, url):
    url = url.format(tmp_path)
    assert Relay(url, ours).shards() == []
    Relay(url, theirs.path).put(name, theirs.path / name)
    opened = Relay(url, ours)
    assert [f"shards/{each}" for each in opened.shards()] == [name]
    assert opened.fetch(name, ours, RECIPE.key) == ""
    assert (ours / name).read_bytes() == (theirs.path / name).read_bytes()
    assert opened.fetch("shards/none.h5", ours, RECIPE.key) == "it is not there"


def changed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("harm", [changed, lambda data: data[:-7], lambda _: b"", lambda _: b"<html>"])
def test_a_damaged_object_is_refused_and_nothing_of_it_is_kept(tmp_path, theirs, ours, name, harm):
    opened, there = put_there(tmp_path, theirs, name)
    there.write_bytes(harm(there.read_bytes()))
    assert opened.fetch(name, ours, RECIPE.key)
    assert not ours.exists()
    opened.put(name, theirs.path / name)
    assert opened.fetch(name, ours, RECIPE.key) == "", "computed anew, it takes the place of the damaged one"


def test_a_whole_shard_of_another_name_or_recipe_is_refused(tmp_path, theirs, ours, name):
    opened, there = put_there(tmp_path, theirs, name)
    other = put_shard(SetFolder(tmp_path / "other"), [5], HALF)
    (there.parent / other.name).write_bytes(other.read_bytes())
    assert opened.fetch(f"shards/{other.name}", ours, RECIPE.key) == "the shard is of another recipe"
    there.write_bytes(put_shard(SetFolder(tmp_path / "other"), [5]).read_bytes())
    assert "its name is not that of its content" in opened.fetch(name, ours, RECIPE.key)
    assert not ours.exists()


def test_what_cannot_be_a_shard_takes_no_memory(tmp_path, theirs, ours, name, monkeypatch):
    opened, there = put_there(tmp_path, theirs, name)
    monkeypatch.setattr(relay, "MAX_BYTES", there.stat().st_size - 1)
    assert "no file of ours has" in opened.fetch(name, ours, RECIPE.key)
    there.unlink()
    there.mkdir()
    assert opened.fetch(name, ours, RECIPE.key) == "it is not there"
    (there.parent / "notes.txt").touch()
    assert opened.shards() == [there.name], "by names alone"


def test_a_damaged_shard_of_the_cache_is_replaced_and_a_whole_one_stays(tmp_path, theirs, ours, name):
    opened, there = put_there(tmp_path, theirs, name)
    (ours / "shards").mkdir(parents=True)
    (ours / name).write_bytes(changed(there.read_bytes()))
    for _ in range(2):
        assert opened.fetch(name, ours, RECIPE.key) == ""
        assert (ours / name).read_bytes() == there.read_bytes()


def test_weights_are_put_there_once_and_proven_where_they_come(tmp_path, theirs, ours, monkeypatch):
    opened, put = open_relay(tmp_path, theirs.path), []
    real = opened.put
    monkeypatch.setattr(opened, "put", lambda name, path: put.append(name) or real(name, path))
    opened.lend(theirs.path)
    opened.lend(theirs.path)
    assert put == [WEIGHTS, GOLDEN, GOLDEN]
    ours.mkdir(parents=True)
    opened.borrow(ours, RECIPE)
    for each in (WEIGHTS, GOLDEN):
        assert (ours / each).read_bytes() == (theirs.path / each).read_bytes()
    there = Path(str(opened._at(WEIGHTS)))
    there.write_bytes(changed(there.read_bytes()))
    with pytest.raises(StoreError, match=rf"{WEIGHTS}: the weights there are not those of the recipe\. Remove them"):
        opened.borrow(ours, RECIPE)


def test_the_command_takes_one_with_ray_alone(tmp_path):
    said = CliRunner().invoke(pipeline.main, ["extract", str(tmp_path), "--relay", "s3://bucket/prefix"])
    assert said.exit_code == 1
    assert "a relay are words of Ray. Take them with --engine ray" in said.output


def test_golden_rows_are_proven_too(tmp_path, theirs, ours):
    opened = open_relay(tmp_path, theirs.path)
    (theirs.path / GOLDEN).write_bytes(seal("golden", {"key": RECIPE.key}, lambda _: None)[1])
    opened.put(GOLDEN, theirs.path / GOLDEN)
    assert opened.fetch(GOLDEN, ours, HALF.key) == "the golden rows are of another recipe"
    assert not ours.exists()
    assert opened.fetch(GOLDEN, ours, RECIPE.key) == ""
    assert (ours / GOLDEN).read_bytes() == (theirs.path / GOLDEN).read_bytes()


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_what_may_be_over_soon_is_tried_again(tmp_path, theirs, ours, name, monkeypatch, fails):
    opened, _ = put_there(tmp_path, theirs, name)
    real, left = opened._fs.cat_file, [OSError("the network is down")] * fails

    def cat_file(path: str) -> bytes:
        if left:
            raise left.pop()
        return real(path)

    monkeypatch.setattr(type(opened._fs), "cat_file", staticmethod(cat_file))
    if fails < 3:
        assert opened.fetch(name, ours, RECIPE.key) == ""
        return
    with pytest.raises(StoreError, match=r"cannot be read by .*the network is down.*may list, read and write") as told:
        opened.fetch(name, ours, RECIPE.key)
    assert told.value.where.startswith(f"file://{tmp_path}/relay/")
    assert told.value.where.endswith(name)


@pytest.mark.parametrize("stopped", [True, False])
def test_what_lasts_or_comes_after_the_end_is_not_tried_again(tmp_path, theirs, name, monkeypatch, stopped):
    opened, tried = open_relay(tmp_path, theirs.path), []

    def put_file(*_: object) -> None:
        tried.append(1)
        raise (OSError if stopped else PermissionError)("no access")

    monkeypatch.setattr(type(opened._fs), "put_file", staticmethod(put_file))
    if stopped:
        opened.stop()
    with pytest.raises(StoreError, match=r"cannot be written by .*no access"):
        opened.put(name, theirs.path / name)
    assert tried == [1]


def test_a_full_disk_is_told_as_that_and_leaves_nothing(tmp_path, theirs, ours, name, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    opened, _ = put_there(tmp_path, theirs, name)
    monkeypatch.setattr(files, "_write", full)
    with pytest.raises(StoreError, match=r"No space left on device.*Make room"):
        opened.fetch(name, ours, RECIPE.key)
    assert list((ours / "shards").iterdir()) == []


def test_without_what_a_protocol_needs_that_is_named(theirs, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(StoreError, match=r"s3://bucket/.*cannot be opened.*offshelf\[cloud\].*s3fs"):
        Relay("s3://bucket/prefix", theirs.path)
    with pytest.raises(StoreError, match=r"cannot be opened by .*not known"):
        Relay("carrier-pigeon://loft", theirs.path)


@pytest.mark.parametrize(
    ("url", "shown", "said"),
    [
        ("s3://bucket/a", "s3://bucket/a", "no answer from s3://bucket/a"),
        ("abfs://box@account.example/a", "abfs://box@account.example/a", "no answer from abfs://box@account.example/a"),
        ("odd://me:p%40ss/word@host/a@b?token=t0ken&x=y", "odd://***@b?***", "no answer"),
    ],
)
def test_secrets_are_not_shown(theirs, monkeypatch, url, shown, said):
    def fails(_: str) -> None:
        raise OSError(f"no answer from {url}" + (" (p@ss/word, token=t0ken)" if "t0ken" in url else ""))

    monkeypatch.setattr(relay, "_file_system", fails)
    with pytest.raises(StoreError) as told:
        Relay(url, theirs.path)
    assert told.value.where == f"{shown}/{theirs.name}"
    assert said in told.value.what
    for secret in ("ss/word", "t0ken"):
        assert secret not in str(told.value)
