import os
import time
from pathlib import Path

import pytest

from extract import loader
from extract.contents import Contents, find_contents
from extract.progress import Silent
from extract.spec import Failure, Record
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
    real = loader.read_bytes

    def read(record: Record, max_bytes: int) -> bytes | Failure:
        seen.append(record.id)
        return real(record, max_bytes)

    monkeypatch.setattr(loader, "read_bytes", read)
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


def test_a_file_that_changed_just_now_is_read_until_a_change_would_show(records, reads):
    put(Path(records[0].path), 99)
    first = found(records, Known())
    assert sorted(first.known) == ["1.png", "2.png", "3.png", "4.png"]
    reads.clear()
    time.sleep(1.5 * FINE_NS / 1e9)
    again = found(records, Known(first.known))
    assert reads == ["0.png"]
    assert len(again.known) == 5


def test_a_file_that_changes_while_it_is_read_is_not_remembered(records, monkeypatch):
    real = loader.read_bytes

    def read(record: Record, max_bytes: int) -> bytes | Failure:
        data = real(record, max_bytes)
        if record.id == "1.png":
            os.utime(record.path)
        return data

    monkeypatch.setattr(loader, "read_bytes", read)
    assert sorted(found(records, Known()).known) == ["0.png", "2.png", "3.png", "4.png"]


def test_what_cannot_be_read_is_tried_every_time(records, reads):
    gone = Record("gone", "/nothing/here")
    first = found([*records, gone], Known())
    assert isinstance(first.digests[-1], Failure)
    reads.clear()
    found([*records, gone], Known(first.known))
    assert reads == ["gone"]
