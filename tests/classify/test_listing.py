import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify import listing
from classify.listing import Images, Listed, images_of, records_of
from extract.errors import SourceError
from extract.record import Record
from tests.tiny import put


class Slow(io.RawIOBase):
    """Bytes that come a few at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self.left, self.step = data, step

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data, self.left = self.left[: self.step], self.left[self.step :]
        return data


paths = st.lists(st.binary(min_size=1, max_size=9).filter(lambda name: not set(name) & set(b"\0\n\r")), max_size=9)


@given(names=paths, step=st.integers(1, 20), end=st.sampled_from([b"\n", b"\0", b"\r\n"]), last=st.booleans())
def test_paths_come_as_they_were_written_however_they_arrive(names, step, end, last):
    data = end.join([*names, b""] if last else names)
    found = list(Listed(Slow(data, step), b"\0" if end == b"\0" else b"\n", Path("/somewhere")))
    assert [os.fsencode(record.id) for record in found] == names
    assert [record.path for record in found] == [os.path.join("/somewhere", os.fsdecode(name)) for name in names]


def test_paths_that_end_in_nul_may_hold_line_feeds():
    found = list(Listed(io.BytesIO(b"a\nb\0c\r\0\0"), b"\0"))
    assert [record.id for record in found] == ["a\nb", "c\r"]


def test_a_list_is_read_no_further_than_it_is_asked_for():
    stream = Slow(b"".join(b"%06d\n" % i for i in range(1000)), 70)
    assert [record.id for record in islice(Listed(stream, b"\n"), 3)] == ["000000", "000001", "000002"]
    assert len(stream.left) == 6930


def test_what_is_too_long_for_a_path_is_refused(monkeypatch):
    monkeypatch.setattr(listing, "MAX_PATH", 100)
    with pytest.raises(SourceError, match="are no path"):
        list(Listed(Slow(b"x" * 500, 50), b"\n"))


def test_a_list_stands_behind_the_other_inputs_in_its_own_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(Path("in/2.png"), 1), put(Path("in/1.png"), 2)
    found = images_of(("in", "-"), None, io.BytesIO(b"z.png\n/a.png\n"))
    assert found.n is None
    assert list(found.records) == [
        *(Record(f"in/{i}.png", f"{tmp_path}/in/{i}.png") for i in (1, 2)),
        Record("z.png", f"{tmp_path}/z.png"),
        Record("/a.png", "/a.png"),
    ]
    with pytest.raises(SourceError, match="twice"):
        images_of(("-", "-"), None, io.BytesIO())


def test_a_root_is_for_lists_and_manifests_and_no_input_passes_over_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = put(tmp_path / "pets" / "1.png", 1)
    (tmp_path / "list.csv").write_text("path\n1.png\n")
    assert [record.path for record in images_of(("-",), Path("pets"), io.BytesIO(b"1.png")).records] == [str(image)]
    listed = images_of(("list.csv",), Path("pets"), io.BytesIO())
    assert (listed.n, [record.path for record in listed.records]) == (1, [str(image)])
    mixed = records_of(("list.csv", "pets"), Path("pets"))
    assert [(record.id, record.path) for record in mixed] == [("1.png", str(image)), ("pets/1.png", str(image))]
    for inputs in (("pets",), ("pets/1.png",)):
        with pytest.raises(SourceError, match="a root means nothing"):
            images_of(inputs, Path("pets"), io.BytesIO())


@contextmanager
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """A pipe: what to read from, and what to write to, unbuffered."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        yield reader, writer


def ids(burst: Iterable[Record]) -> list[str]:
    return [record.id for record in burst]


@pytest.mark.skipif(os.name != "posix", reason="only there a pipe can be asked whether more comes")
def test_a_list_that_pauses_comes_in_parts(monkeypatch):
    monkeypatch.setattr(listing, "PAUSE_S", 0.01)
    with pipe() as (reader, writer):
        bursts = Images(Listed(reader, b"\n", None, [Record("first.png", "/first.png")]), None).bursts()
        writer.write(b"a.png\nb.png\nc.p")
        assert ids(next(bursts)) == ["first.png", "a.png", "b.png"]
        writer.write(b"ng\n\n")
        assert ids(next(bursts)) == ["c.png"]
        writer.write(b"d.png")
        writer.close()
        assert ids(next(bursts)) == ["d.png"]
        assert next(bursts, None) is None


def test_a_list_that_does_not_pause_comes_in_one_part():
    assert [ids(burst) for burst in Images(Listed(io.BytesIO(b"a\nb\nc"), b"\n"), None).bursts()] == [["a", "b", "c"]]
    assert [ids(burst) for burst in Images.of([Record("a", "/a"), Record("b", "/b")]).bursts()] == [["a", "b"]]
    assert [ids(burst) for burst in Images(Listed(io.BytesIO(), b"\n"), None).bursts()] == []
