import io
import os
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify import listing
from classify.listing import images_of, listed_paths, records_of
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
    found = list(listed_paths(Slow(data, step), b"\0" if end == b"\0" else b"\n", Path("/somewhere")))
    assert [os.fsencode(record.id) for record in found] == names
    assert [record.path for record in found] == [os.path.join("/somewhere", os.fsdecode(name)) for name in names]


def test_paths_that_end_in_nul_may_hold_line_feeds():
    found = list(listed_paths(io.BytesIO(b"a\nb\0c\r\0\0"), b"\0"))
    assert [record.id for record in found] == ["a\nb", "c\r"]


def test_a_list_is_read_no_further_than_it_is_asked_for():
    stream = Slow(b"".join(b"%06d\n" % i for i in range(1000)), 70)
    assert [record.id for record in islice(listed_paths(stream, b"\n"), 3)] == ["000000", "000001", "000002"]
    assert len(stream.left) == 6930


def test_what_is_too_long_for_a_path_is_refused(monkeypatch):
    monkeypatch.setattr(listing, "MAX_PATH", 100)
    with pytest.raises(SourceError, match="are no path"):
        list(listed_paths(Slow(b"x" * 500, 50), b"\n"))


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
