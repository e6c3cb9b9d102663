import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.record import Record
from extract.store import known
from extract.store.known import Known, read_known, settled, signature_of, write_known

DIGEST = bytes(range(32))
NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=8)
NUMBERS = st.integers(0, 2**63 - 1)


def a_file(folder, name="a", data=b"data") -> Record:
    (folder / name).write_bytes(data)
    return Record(name, str(folder / name))


@given(st.dictionaries(NAMES, st.tuples(st.tuples(*[NUMBERS] * known.FIELDS), st.binary(min_size=32, max_size=32))))
def test_what_is_known_survives_the_disk(tmp_path_factory, by_id):
    path = tmp_path_factory.mktemp("known") / "contents.h5"
    write_known(path, by_id)
    assert read_known(path).by_id == by_id


def test_nothing_is_known_where_the_file_is_missing_or_damaged(tmp_path):
    path = tmp_path / "contents.h5"
    assert read_known(path) == Known()
    write_known(path, {"a": ((0,) * known.FIELDS, DIGEST)})
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 7):
        path.write_bytes(bytes([*data[:place], data[place] ^ 1, *data[place + 1 :]]))
        assert read_known(path).by_id in ({}, {"a": ((0,) * known.FIELDS, DIGEST)})


def test_the_same_is_not_written_again(tmp_path):
    write_known(tmp_path / "c", {"a": ((0,) * known.FIELDS, DIGEST)})
    before = (tmp_path / "c").stat()
    write_known(tmp_path / "c", {"a": ((0,) * known.FIELDS, DIGEST)})
    assert (tmp_path / "c").stat() == before


def edit_in_place(path):
    with open(path, "r+b") as file:
        file.write(b"DATA")


def edit_and_turn_the_clock_back(path):
    status = os.stat(path)
    edit_in_place(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_a_copy_with_its_times(path):
    status = os.stat(path)
    with open(f"{path}.new", "wb") as file:
        file.write(b"DATA")
    os.utime(f"{path}.new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(f"{path}.new", path)


@pytest.mark.parametrize(
    "change", [edit_in_place, edit_and_turn_the_clock_back, replace_by_a_copy_with_its_times, os.unlink]
)
def test_every_change_shows_though_the_size_stays(tmp_path, change):
    record = a_file(tmp_path)
    signature = signature_of(record)
    found = Known({"a": (signature, DIGEST)})
    assert found.digest(record, signature_of(record)) == DIGEST
    time.sleep(0.02)  # clocks of file systems tick
    change(record.path)
    assert found.digest(record, signature_of(record)) is None


def test_the_name_counts(tmp_path):
    one, other = a_file(tmp_path), a_file(tmp_path, "b")
    found = Known({"a": (signature_of(one), DIGEST)})
    assert found.digest(other, signature_of(one)) is None


def test_members_of_an_archive_are_told_apart(tmp_path):
    tar = a_file(tmp_path)
    members = [Record("m", tar.path, span=span) for span in ((0, 2), (2, 2), (0, 1))]
    assert len(set(map(signature_of, members))) == 3
    os.truncate(tar.path, 2)
    assert signature_of(members[0]) != Known({"m": (signature_of(members[1]), DIGEST)}).by_id["m"][0]


@pytest.mark.parametrize("path", ["torchvision:MNIST?root=x#1", "nothing/here", "nul\0"])
def test_what_cannot_be_looked_at_is_never_known(path):
    assert signature_of(Record("a", path)) is None
    assert Known({"a": ((0,) * known.FIELDS, DIGEST)}).digest(Record("a", path), None) is None


def test_a_file_that_changed_just_now_is_not_settled():
    fine, coarse = 10**18 + 123, 10**18
    assert not settled((1, fine, fine, 1, 0, 1), fine + known.FINE_NS)
    assert settled((1, fine, fine, 1, 0, 1), fine + known.FINE_NS + 1)
    assert not settled((1, coarse, coarse, 1, 0, 1), coarse + known.FINE_NS + 1)
    assert settled((1, coarse, coarse, 1, 0, 1), coarse + known.COARSE_NS + 1)
    assert not settled((1, 0, fine, 1, 0, 1), fine), "the content may be old and its inode new"
