import hashlib
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator

import pytest
from torch import Tensor

from extract.decoding import pool
from extract.loader import NO_DIGEST, Loaded, Loader, content_digests
from extract.spec import Failure, Preprocessing, Record, Status
from tests.tiny import put

PRESET = Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def records(tmp_path, n: int) -> list[Record]:
    return [Record(f"{i}.png", str(put(tmp_path / f"{i}.png", i))) for i in range(n)]


def load_batches(
    listed: Iterable[Record], preset: Preprocessing, *, batch_size: int, workers: int
) -> Iterator[list[Loaded]]:
    with Loader(preset, workers=workers) as loader:
        yield from loader.batches(listed, batch_size)


def digest_of(record: Record) -> bytes:
    with open(record.path, "rb") as file:
        return hashlib.sha256(file.read()).digest()


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_come_in_order_and_the_last_is_what_is_left(tmp_path, workers):
    listed = records(tmp_path, 7)
    batches = list(load_batches(listed, PRESET, batch_size=3, workers=workers))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [item.digest for batch in batches for item in batch] == list(map(digest_of, listed))
    assert all(item.outcome.shape == (3, 32, 32) for batch in batches for item in batch)


def test_order_holds_where_the_first_take_longest(monkeypatch):
    later = threading.Event()

    def slow_first(_, record: Record) -> Loaded:
        if record.id == "0":
            assert later.wait(30)
        elif record.id == "3":
            later.set()
        return Loaded(record.id.encode(), Failure(Status.EMPTY, ""), 0, 0)

    monkeypatch.setattr(Loader, "load", slow_first)
    listed = [Record(str(i), "") for i in range(6)]
    [batch, rest] = load_batches(listed, PRESET, batch_size=4, workers=4)
    assert [item.digest for item in [*batch, *rest]] == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_never_more_than_three_batches_are_started_and_not_taken(monkeypatch):
    monkeypatch.setattr(Loader, "load", lambda _, record: Loaded(record.id.encode(), Failure(1, ""), 0, 0))
    started = taken = 0

    def listed():
        nonlocal started
        for i in range(100):
            started += 1
            yield Record(str(i), "")

    for batch in load_batches(listed(), PRESET, batch_size=5, workers=8):
        taken += len(batch)
        assert started <= taken + 3 * 5
    assert taken == started == 100


def test_no_more_threads_than_workers_run_at_once(monkeypatch):
    running, most, lock = 0, 0, threading.Lock()

    def counted(_, record: Record) -> Loaded:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001)
        with lock:
            running -= 1
        return Loaded(record.id.encode(), Failure(1, ""), 0, 0)

    monkeypatch.setattr(Loader, "load", counted)
    assert sum(map(len, load_batches([Record(str(i), "") for i in range(50)], PRESET, batch_size=8, workers=3))) == 50
    assert most <= 3


def test_a_reader_that_stops_early_leaves_no_thread_behind(tmp_path):
    before = threading.active_count()
    batches = load_batches(records(tmp_path, 9), PRESET, batch_size=2, workers=2)
    assert len(next(batches)) == 2
    batches.close()
    assert threading.active_count() == before


def test_no_records_make_no_batch():
    assert list(load_batches([], PRESET, batch_size=3, workers=2)) == []
    assert list(content_digests([], workers=2)) == []


def test_what_cannot_be_read_is_a_failure_in_its_place(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    [good] = records(tmp_path, 1)
    names = ["gone.png", "pipe.png", "text.png", "empty.png"]
    listed = [good, *(Record(name, str(tmp_path / name)) for name in names), good]
    [batch] = load_batches(listed, PRESET, batch_size=10, workers=2)
    assert isinstance(batch[0].outcome, Tensor)
    assert batch[0].outcome.equal(batch[5].outcome)
    assert [item.outcome.status for item in batch[1:5]] == [
        Status.MISSING,
        Status.MISSING,
        Status.NOT_AN_IMAGE,
        Status.EMPTY,
    ]
    assert [item.digest == NO_DIGEST for item in batch] == [False, True, True, False, True, False]


def test_an_exception_in_a_worker_surfaces(tmp_path, monkeypatch):
    def broken(_, record: Record) -> Loaded:
        if record.id == "4.png":
            raise ZeroDivisionError("a bug of ours")
        return Loaded(NO_DIGEST, Failure(1, ""), 0, 0)

    monkeypatch.setattr(Loader, "load", broken)
    batches = load_batches(records(tmp_path, 9), PRESET, batch_size=2, workers=2)
    assert len(next(batches)) == len(next(batches)) == 2
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        next(batches)


def test_content_digests_are_those_of_the_bytes(tmp_path):
    listed = [*records(tmp_path, 5), Record("gone", str(tmp_path / "gone"))]
    *digests, last = content_digests(listed, workers=2)
    assert digests == list(map(digest_of, listed[:-1]))
    assert last.status == Status.MISSING


def test_an_image_larger_than_the_limit_of_bytes_is_a_failure(tmp_path, monkeypatch):
    [record] = records(tmp_path, 1)
    monkeypatch.setattr("extract.images.MAX_BYTES", 10)
    with Loader(PRESET, workers=1) as loader:
        assert loader.load(record).outcome.status == Status.TOO_LARGE


@pytest.fixture
def started(monkeypatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started to decode."""
    processes = []
    start = pool._started
    monkeypatch.setattr(pool, "_started", lambda preset: processes.append(start(preset)) or processes[-1])
    return processes


def test_processes_live_as_long_as_the_loader(tmp_path, started):
    listed = records(tmp_path, 9)
    with Loader(PRESET, workers=2) as loader:
        for _ in range(3):
            assert sum(map(len, loader.batches(listed, 4))) == 9
        assert 1 <= len(started) <= 2
        assert all(process.poll() is None for process in started)
    assert all(process.poll() is not None for process in started)


def test_no_more_processes_are_started_than_there_are_images(tmp_path, started):
    with Loader(PRESET, workers=50) as loader:
        list(loader.batches(records(tmp_path, 2), 4))
        list(loader.batches([Record("gone", str(tmp_path / "gone"))] * 9, 4))
    assert 1 <= len(started) <= 2


def test_a_loader_goes_on_after_batches_that_were_not_taken(tmp_path):
    listed = records(tmp_path, 9)
    with Loader(PRESET, workers=2) as loader:
        batches = loader.batches(listed, 2)
        next(batches)
        batches.close()
        [batch] = loader.batches(listed, 9)
    assert [item.digest for item in batch] == list(map(digest_of, listed))


def test_pixels_are_tensors_of_their_own_that_can_be_written(tmp_path):
    [record] = records(tmp_path, 1)
    [[first, second]] = load_batches([record, record], PRESET, batch_size=2, workers=1)
    expected = second.outcome.clone()
    first.outcome.zero_()
    assert second.outcome.equal(expected)
    assert expected.any()
