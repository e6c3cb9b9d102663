"""The engine with real actors, in a session that all tests here share, and what it makes of what a pool tells it."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pipeline
from extract import loader
from extract.engines import pool, ray, todo
from extract.engines.session import session
from extract.errors import EngineError, OptionError, StoreError
from extract.progress import Silent
from extract.shard import Receipt
from extract.spec import EngineSpec
from tests.extract.engines.shards_of_tiny import ROWS, Quick, Tiny, tiny_job
from tests.faults.storage import InProcess
from tests.tiny import rows_in, tiny_folder

pytest.importorskip("ray")


class Watcher(Silent):
    """Counts what it hears, and does something at the first rows."""

    def __init__(self, do: Callable[[], object] = lambda: None) -> None:
        self.do, self.rows, self.bad = do, 0, 0
        self.notes: list[str] = []

    def advance(self, steps: int, bad: int = 0) -> None:
        first, self.rows, self.bad = not self.rows, self.rows + steps, self.bad + bad
        if first:
            self.do()

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def one_session() -> Iterator[Any]:
    with session(EngineSpec("ray", actors=2)) as connected:
        yield connected


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> list[str]:
    """The files that the local engine makes: the images are the same in every test."""
    return sorted(tiny_job(tmp_path_factory.mktemp("locally")).made_locally())


def run(job: Tiny, watcher: Silent | None = None) -> Iterator[Receipt]:
    return ray.run(job.shards, job.extractor, job.folder, job.spec, watcher or Silent())


def assert_free(ray_itself: Any) -> None:
    """No actor is left: all CPUs are free again."""
    deadline = time.monotonic() + 60
    while ray_itself.available_resources().get("CPU") != ray_itself.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def faulty(monkeypatch: pytest.MonkeyPatch, folder: Path, fault: Callable[[str, Callable[[], bool]], None]) -> None:
    """Have actors call a fault before every record but the first two of a shard, with its id, and a flag on disk.

    The flag tells for the first one who asks, in whatever process, that it is the first.
    """
    flag = folder / "flag"

    def first() -> bool:
        try:
            flag.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    class Faulty(Quick):
        def _until_stopped(self, records):
            for i, record in enumerate(super()._until_stopped(records)):
                if i > 1:
                    fault(record.id, first)
                yield record

    monkeypatch.setattr(pool, "Actor", Faulty)


def test_it_makes_the_files_of_the_local_engine(tmp_path, one_session, names):
    job, watcher = tiny_job(tmp_path), Watcher()
    receipts = list(run(job, watcher))
    assert sorted(receipt.name for receipt in receipts) == sorted(job.made()) == names
    assert (watcher.rows, watcher.bad) == (4 * ROWS, 1)
    assert {path.name for path in job.folder.parent.iterdir()} == {"shards", "weights.safetensors", "golden.h5"}
    assert_free(one_session)


def test_by_a_relay_it_makes_the_same_files_without_a_cache_that_actors_see(tmp_path, one_session, monkeypatch, names):
    monkeypatch.setattr(loader, "Decoder", InProcess)  # for the golden images, which the driver looks at here
    real, scratch = ray._order, tmp_path / "scratch"
    scratch.mkdir()

    class Tidy(Quick):
        """One that is ended while it starts, as there is nothing left to do, leaves its temporary folder."""

        def start(self, order, place):
            tempfile.tempdir = str(scratch)  # each actor is a process of its own
            return super().start(order, place)

    def of_another_machine(shards: Any, extractor: Any, folder: Path, *given: Any) -> Any:
        return real(shards, extractor, Path("/away", *folder.parts[-3:]), *given)

    monkeypatch.setattr(ray, "_order", of_another_machine)
    monkeypatch.setattr(pool, "Actor", Tidy)
    job, watcher = tiny_job(tmp_path, relay=f"file://{tmp_path}/relay"), Watcher()
    receipts = list(run(job, watcher))
    assert sorted(receipt.name for receipt in receipts) == sorted(job.made()) == names
    assert (watcher.rows, watcher.bad) == (4 * ROWS, 1)
    there = tmp_path.joinpath("relay", *job.folder.parts[-3:])
    assert all((there / name).read_bytes() == (job.folder / name).read_bytes() for name in names)
    assert {path.name for path in job.folder.parent.iterdir()} == {"shards", "weights.safetensors", "golden.h5"}
    assert_free(one_session)


def test_an_actor_that_is_killed_in_a_shard_loses_no_row_and_doubles_none(tmp_path, one_session, monkeypatch, names):
    faulty(monkeypatch, tmp_path, lambda name, first: kill() if name == "3.png" and first() else None)
    job, watcher = tiny_job(tmp_path, actors=1), Watcher()
    receipts = list(run(job, watcher))
    assert (tmp_path / "flag").exists()
    assert sorted(receipt.name for receipt in receipts) == sorted(job.made()) == names
    assert watcher.rows == 4 * ROWS
    assert_free(one_session)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_shard_that_kills_every_time_is_told_and_the_others_are_kept(tmp_path, one_session, monkeypatch, capfd):
    faulty(monkeypatch, tmp_path, lambda name, _: kill() if name == "cat/03.jpg" else None)
    monkeypatch.setattr("extract.job.SHARD_ROWS", ROWS)
    # A third try is proven elsewhere, and costs a start.
    monkeypatch.setattr("extract.commands.extract.EngineSpec", partial(EngineSpec, retries=2))
    data, cache = tiny_folder(tmp_path / "pets", per_class=ROWS), tmp_path / "cache"
    options = ["-m", "builtin", "--weights", "none", "--device", "cpu", "--engine", "ray", "--actors", "1", "--json"]
    said = CliRunner().invoke(pipeline.main, ["extract", str(data), "--cache", str(cache), *options])
    assert said.exit_code == 1
    error = json.loads(said.stdout)["error"]
    assert error["type"] == "ShardsFailed"
    assert error["what"].startswith("1 of 2 shards failed each time they were tried")
    assert error["where"] == "the shard that begins with cat/00.png"
    assert "its worker process has died" in error["remedy"]
    assert [rows_in(path) for path in cache.glob("pets/*/shards/*.h5")] == [ROWS]
    assert capfd.readouterr().out == "", "nor has Ray printed a word"
    assert_free(one_session)


def test_a_shard_that_hangs_is_given_to_another_actor_as_well(tmp_path, one_session, monkeypatch, names):
    def fault(_: str, first: Callable[[], bool]) -> None:
        if first():
            time.sleep(3600)

    faulty(monkeypatch, tmp_path, fault)
    monkeypatch.setattr(todo, "STRAGGLER", 0)
    monkeypatch.setattr(todo, "STRAGGLER_S", 0)
    job, watcher = tiny_job(tmp_path), Watcher()
    receipts = list(run(job, watcher))
    assert sorted(receipt.name for receipt in receipts) == sorted(job.made()) == names
    assert watcher.rows == 4 * ROWS
    assert_free(one_session)


def test_ctrl_c_has_actors_write_what_is_done(tmp_path, one_session, monkeypatch):
    """The first shard waits in the middle for the end; another one is done, and then it comes."""
    stopped = tmp_path / "stopped"

    class Waits(Quick):
        def _until_stopped(self, records):
            for i, record in enumerate(records):
                if record.id == "4.png":
                    self._stopped.wait()
                    stopped.touch()
                yield from super()._until_stopped(records[i : i + 1])

    monkeypatch.setattr(pool, "Actor", Waits)
    monkeypatch.setattr(ray, "GRACE_S", 60)
    job, receipts = tiny_job(tmp_path), []
    with pytest.raises(KeyboardInterrupt):
        receipts.extend(run(job, Watcher(lambda: signal.raise_signal(signal.SIGINT))))
    assert stopped.exists()
    assert {receipt.name for receipt in receipts} == job.made()
    assert 0 < sum(job.rows_in(job.folder / name) for name in job.made()) < 4 * ROWS
    assert_free(one_session)


def test_what_ends_every_engine_ends_this_one_at_once_and_leaves_no_actor(tmp_path, one_session, monkeypatch):
    def full(name: str, _: Callable[[], bool]) -> None:
        if name == f"{ROWS + 3}.png":
            raise StoreError("no room", where="there", remedy="Make some")

    faulty(monkeypatch, tmp_path, full)
    job = tiny_job(tmp_path, actors=1)
    receipts = run(job)
    kept = next(receipts).name
    with pytest.raises(StoreError, match=r"^there: no room\. Make some$"):
        list(receipts)
    assert job.made() == {kept}
    assert_free(one_session)


def test_no_more_is_asked_for_than_there_is(tmp_path, one_session):
    with pytest.raises(EngineError, match=r"no room for an actor of 1 CPUs and 64 GPUs.*--gpus-per-actor"):
        list(run(tiny_job(tmp_path, actors=None, gpus=64)))
    with pytest.raises(EngineError, match=r"10\.0\.0\.1:6379: this process is connected to Ray already"):
        list(run(tiny_job(tmp_path / "b", address="10.0.0.1:6379")))


def test_nothing_to_do_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "session", lambda _: pytest.fail("there is nothing to do"))
    job = tiny_job(tmp_path)
    assert list(ray.run([], job.extractor, job.folder, job.spec, Silent())) == []


def test_a_trace_is_refused(tmp_path):
    job = tiny_job(tmp_path)
    spec = replace(job.spec, profile=tmp_path / "trace.json")
    with pytest.raises(OptionError, match="--profile"):
        list(ray.run(job.shards, job.extractor, job.folder, spec, Silent()))
