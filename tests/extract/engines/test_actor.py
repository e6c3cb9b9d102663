"""What an actor is made of, without Ray: it is an ordinary class."""

import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from extract import golden
from extract.engines import actor, local, ray
from extract.engines.actor import Actor, Place
from extract.engines.worker import Order, error_from, receipt_from
from extract.errors import BackboneError, EngineError, StoreError
from extract.progress import Silent
from extract.record import Record
from extract.sources import open_source, read_bytes
from extract.store.relay import Relay
from extract.store.shards import shards_in
from tests.extract.engines.shards_of_tiny import Tiny, tiny_job
from tests.tiny import put

pytestmark = pytest.mark.usefixtures("no_thread_left")


@pytest.fixture
def job(tmp_path) -> Tiny:
    return tiny_job(tmp_path)


@pytest.fixture
def order(job) -> Order:
    return ray._order(job.shards, job.extractor, job.folder, job.spec, 1, 0)


@pytest.fixture
def at_work(order) -> Iterator[Actor]:
    """An actor that has started."""
    threads, worker = torch.get_num_threads(), Actor()
    assert worker.start(order, Place(1, ())) == {"notes": []}
    yield worker
    worker._ends.close()
    torch.set_num_threads(threads)


def test_it_makes_the_files_of_the_local_engine(job, at_work, tmp_path):
    said = [at_work.compute(shard) for shard in job.shards]
    receipts = [receipt_from(receipt) for each in said for receipt in each["receipts"]]
    folder = tmp_path / "local" / "shards"
    expected = list(local.run(job.shards, job.extractor, folder, job.spec, Silent()))
    assert [receipt.name for receipt in receipts] == [receipt.name for receipt in expected]
    assert [receipt.rows for receipt in receipts] == list(map(len, job.shards))
    assert sum(receipt.bad for receipt in receipts) == 1
    for path in shards_in(folder):
        assert (job.folder / path.name).read_bytes() == path.read_bytes()


def test_by_a_relay_its_shards_go_there_and_it_leaves_nothing_here(job, order, tmp_path, monkeypatch):
    url, scratch, threads = f"file://{tmp_path}/relay", tmp_path / "scratch", torch.get_num_threads()
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    golden.prove_plain(job.extractor, job.folder.parent)
    Relay(url, job.folder.parent).lend(job.folder.parent)
    away = Path("/away", *job.folder.parts[-3:])
    worker = Actor()
    assert worker.start(replace(order, folder=str(away)), Place(1, (), url)) == {"notes": []}
    [receipt] = worker.compute(job.shards[0])["receipts"]
    worker._ends.close()
    torch.set_num_threads(threads)
    assert list(scratch.iterdir()) == []
    assert receipt["stages"]["seconds"]["write"] > 0
    there = tmp_path.joinpath("relay", *job.folder.parts[-3:], receipt["name"])
    [expected] = local.run(job.shards[:1], job.extractor, job.folder, job.spec, Silent())
    assert (job.folder / expected.name).read_bytes() == there.read_bytes()


def test_where_a_relay_has_nothing_for_it_that_is_told(order, tmp_path):
    error = error_from(Actor().start(order, Place(1, (), f"file://{tmp_path}/relay"))["error"])
    assert isinstance(error, StoreError)
    assert error.where.startswith(f"file://{tmp_path}/relay/")
    assert "weights.safetensors" in error.where


def test_a_shard_is_one_file_however_long_it_takes(job, at_work, monkeypatch):
    monkeypatch.setattr("extract.shard.SHARD_S", 0)
    [receipt] = at_work.compute(job.shards[0])["receipts"]
    assert receipt["rows"] == len(job.shards[0])


def test_told_to_stop_it_writes_what_is_done_and_no_more(job, at_work, monkeypatch):
    real = Actor._until_stopped

    def stopped_at_the_fourth(self, records):
        for i, record in enumerate(real(self, records)):
            if i == 3:
                self.stop()
            yield record

    monkeypatch.setattr(Actor, "_until_stopped", stopped_at_the_fourth)
    said = at_work.compute(job.shards[0])
    assert sum(receipt["rows"] for receipt in said["receipts"]) == sum(map(job.rows_in, shards_in(job.folder))) <= 4


def test_errors_of_ours_are_words(job, order, at_work, monkeypatch):
    def full(*_: object) -> None:
        raise StoreError("no room", where="there", remedy="Make some")

    monkeypatch.setattr("extract.shard.write_shard", full)
    error = error_from(at_work.compute(job.shards[0])["error"])
    assert (type(error), str(error)) == (StoreError, "there: no room. Make some")


def test_without_its_weights_it_does_not_start(job, order):
    job.weights.unlink()
    error = error_from(Actor().start(order, Place(1, ()))["error"])
    assert isinstance(error, BackboneError)
    assert error.where == str(job.weights)


def test_it_must_see_the_files_that_it_is_to_read(job, order, tmp_path, monkeypatch):
    monkeypatch.setattr(actor, "SEEN_S", 0)
    away = str(tmp_path / "away")
    error = error_from(Actor().start(order, Place(1, (str(job.weights), away)))["error"])
    assert isinstance(error, EngineError)
    assert error.where == away
    assert "does not see this file" in error.what


def test_a_file_may_take_some_time_to_be_seen(tmp_path):
    path = tmp_path / "late"
    late = threading.Timer(0.3, path.touch)
    late.start()
    actor._check_sees([str(path)])
    late.join()


@pytest.mark.parametrize(("cpus", "lanes"), [(1, 1), (2.0, 2), (3, 2), (8, 8), (0.5, 1)])
def test_it_computes_on_as_many_cores_as_are_its_own(job, order, monkeypatch, cpus, lanes):
    opened = []

    def stream(extractor, folder, spec, work, note):
        opened.append(local.lanes_on(torch.device("cpu"), work.share))
        raise StoreError("enough")

    threads = torch.get_num_threads()
    for module in ("extract.engines.actor", "extract.lanes"):
        monkeypatch.setattr(f"{module}.available_cores", lambda: 8)
    monkeypatch.setattr(actor, "proven_stream", stream)
    Actor().start(replace(order, workers=1), Place(cpus, ()))
    torch.set_num_threads(threads)
    assert opened == [lanes]


def test_nothing_but_what_computes_is_sent(job):
    record = replace(job.shards[0][0], label="cat", split="train", group="a", span=(1, 2))
    assert ray._brief(record) == replace(record, label=None, split=None, group=None)
    of_torchvision = Record("train/00003", "torchvision:MNIST?split=train&root=%2Fdata#3")
    assert ray._brief(of_torchvision) == of_torchvision


def test_an_image_is_named_so_that_any_machine_finds_it_whatever_it_is_read_from(tmp_path, monkeypatch):
    put(tmp_path / "pets/cat/1.png", 1)
    (tmp_path / "pets.csv").write_text("path,label\npets/cat/1.png,cat\n")
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(tmp_path / "pets/cat/1.png", "1.png")
    monkeypatch.chdir(tmp_path)
    sent = [ray._brief(open_source(data).records[0]) for data in ("pets", "pets.csv", "pets.tar")]
    monkeypatch.chdir("/")
    assert [read_bytes(record, 1 << 20) for record in sent] == [(tmp_path / "pets/cat/1.png").read_bytes()] * 3
