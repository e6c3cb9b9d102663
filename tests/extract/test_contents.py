import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from extract import contents
from extract.contents import Contents, content_digests, find_contents
from extract.progress import Silent
from extract.record import Failure, Record, Status
from extract.store.known import FINE_NS, Known
from tests.tiny import put


@pytest.fixture
def records(tmp_path) -> list[Record]:
    listed = [Record(f"{i}.png", str(put(tmp_path / f"{i}.png", i))) for i in range(5)]
    time.sleep(1.5 * FINE_NS / 1e9)  # until a change would show
    return listed


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The ids of the files that are read."""
    seen: list[str] = []
    real = contents.read_bytes

    def read(record: Record, max_bytes: int) -> bytes | Failure:
        seen.append(record.id)
        return real(record, max_bytes)

    monkeypatch.setattr(contents, "read_bytes", read)
    return seen


def found(records: list[Record], known: Known) -> Contents:
    return find_contents(records, known, workers=2, progress=Silent(), remember=print)


def test_what_did_not_change_is_not_read_again(records, reads):
    first = found(records, Known())
    assert sorted(reads) == [record.id for record in records]
    assert first.changed
    reads.clear()
    again = found(records, Known(first.known))
    assert reads == []
    assert again.digests == first.digests
    assert not again.changed


def test_only_what_changed_is_read(records, reads):
    first = found(records, Known())
    reads.clear()
    put(Path(records[2].path), 99)
    again = found(records, Known(first.known))
    assert reads == ["2.png"]
    assert [a == b for a, b in zip(again.digests, first.digests, strict=True)] == [True, True, False, True, True]


def test_what_is_new_or_gone_is_noted(records, reads):
    first = found(records[:3], Known())
    reads.clear()
    again = found(records[1:], Known(first.known))
    assert sorted(reads) == ["3.png", "4.png"]
    assert sorted(again.known) == ["1.png", "2.png", "3.png", "4.png"]


def test_a_file_that_changed_just_now_is_read_until_a_change_would_show(records, reads, monkeypatch):
    changed_ns = put(Path(records[0].path), 99).stat().st_ctime_ns
    with monkeypatch.context() as patch:
        patch.setattr(contents, "time", SimpleNamespace(time_ns=lambda: changed_ns))
        first = found(records, Known())
    assert sorted(first.known) == ["1.png", "2.png", "3.png", "4.png"]
    reads.clear()
    time.sleep(1.5 * FINE_NS / 1e9)
    again = found(records, Known(first.known))
    assert reads == ["0.png"]
    assert len(again.known) == 5


def test_a_file_that_changes_while_it_is_read_is_not_remembered(records, monkeypatch):
    real = contents.read_bytes

    def read(record: Record, max_bytes: int) -> bytes | Failure:
        data = real(record, max_bytes)
        if record.id == "1.png":
            os.utime(record.path)
        return data

    monkeypatch.setattr(contents, "read_bytes", read)
    assert sorted(found(records, Known()).known) == ["0.png", "2.png", "3.png", "4.png"]


def test_what_cannot_be_read_is_tried_every_time(records, reads):
    gone = Record("gone", "/nothing/here")
    first = found([*records, gone], Known())
    assert isinstance(first.digests[-1], Failure)
    reads.clear()
    found([*records, gone], Known(first.known))
    assert reads == ["gone"]


@pytest.mark.parametrize("workers", [1, 4])
def test_content_digests_are_those_of_the_bytes(records, workers):
    listed = [*records, Record("gone", "/nothing/here")]
    *digests, last = content_digests(listed, workers=workers)
    assert digests == [hashlib.sha256(Path(record.path).read_bytes()).digest() for record in records]
    assert last.status == Status.MISSING


def test_no_records_have_no_digests():
    assert list(content_digests([], workers=2)) == []


def test_an_image_larger_than_the_limit_of_bytes_is_not_read(records, monkeypatch):
    monkeypatch.setattr(contents, "MAX_BYTES", 10)
    assert {digest.status for digest in content_digests(records, workers=2)} == {Status.TOO_LARGE}


def numbered(taken: list[int], n: int) -> Iterator[Record]:
    for i in range(n):
        taken.append(i)
        yield Record(str(i), "")


def test_files_are_not_listed_far_ahead_of_what_is_taken(monkeypatch):
    monkeypatch.setattr(contents, "content_digest", lambda record: record.id.encode())
    taken: list[int] = []
    for done, digest in enumerate(content_digests(numbered(taken, 1000), workers=2), 1):
        assert digest == str(done - 1).encode()
        assert len(taken) <= done + 32 * 2
    assert done == 1000


def test_order_holds_where_the_first_file_takes_longest(monkeypatch):
    later = threading.Event()

    def slow_first(record: Record) -> bytes:
        if record.id == "0":
            assert later.wait(30)
        elif record.id == "3":
            later.set()
        return record.id.encode()

    monkeypatch.setattr(contents, "content_digest", slow_first)
    assert list(content_digests(numbered([], 6), workers=2)) == [str(i).encode() for i in range(6)]


def test_a_reader_that_stops_early_leaves_no_thread_behind(records):
    before = threading.active_count()
    digests = content_digests(records * 50, workers=3)
    next(digests)
    digests.close()
    assert threading.active_count() <= before


def test_an_exception_of_ours_surfaces(records, monkeypatch):
    monkeypatch.setattr(contents, "content_digest", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(content_digests(records, workers=2))


def test_an_interrupt_remembers_what_was_read_until_then(records, reads):
    class Pressing(Silent):
        def advance(self, steps: int, bad: int = 0) -> None:
            signal.raise_signal(signal.SIGINT)

    noted = []
    with pytest.raises(KeyboardInterrupt):
        find_contents(records, Known(), workers=1, progress=Pressing(), remember=noted.append)
    [by_id] = noted
    assert list(by_id) == ["0.png"]
    reads.clear()
    again = found(records, Known(by_id))
    assert sorted(reads) == ["1.png", "2.png", "3.png", "4.png"]
    assert len(again.known) == 5
