import hashlib
import json
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import StoreError, UnreadableError
from extract.store import sealed
from extract.store.sealed import (
    BLOCK_BYTES,
    Damage,
    damage,
    open_sealed,
    parse,
    prove_part,
    read_part,
    same_content,
    seal,
)

ARRAYS = {
    "layers/a": np.arange(12, dtype=np.float32).reshape(4, 3),
    "layers/half": np.arange(4, dtype=np.float16).reshape(4, 1),
    "layers/map": np.arange(24, dtype=np.float16).reshape(4, 1, 2, 3),
    "n": np.arange(3),
    "nothing": np.zeros((0, 32), np.uint8),
    "words": sealed.text_array(["one", "", "th\xfcr"]),
}


def fill(file: h5py.File) -> None:
    for name, values in ARRAYS.items():
        file.create_dataset(name, data=values)
    layout = h5py.VirtualLayout((4, 3), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 3), np.float32)
    file.create_virtual_dataset("virtual", layout)


DIGEST, WHOLE = seal("shard", {"key": "k", "format_version": 2, "odd": "caf\udce9"}, fill)


def put(folder: Path, data: bytes = WHOLE) -> Path:
    path = folder / "a.h5"
    path.write_bytes(data)
    return path


def test_what_is_read_without_hdf5_is_what_hdf5_reads(tmp_path):
    path = put(tmp_path)
    file, table = open_sealed(path, "shard")
    with file, h5py.File(path) as other:
        assert other.userblock_size == BLOCK_BYTES
        for name, values in ARRAYS.items():
            np.testing.assert_array_equal(read_part(file, path, "shard", table, name), values)
            np.testing.assert_array_equal(other[name][()], values)
        assert table.attributes == {"key": "k", "format_version": 2, "odd": "caf\udce9"}
        assert (other.attrs["key"], other.attrs["format_version"]) == ("k", 2)
    assert "virtual" not in table.parts
    assert damage(path, "shard") is None


def test_in_memory_it_reads_the_same(tmp_path):
    table, arrays = parse(WHOLE, tmp_path, "shard")
    assert table.sha256 == DIGEST
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], values)


def test_equal_content_gives_equal_bytes_at_any_time():
    def plain(file: h5py.File) -> None:
        for name, values in ARRAYS.items():
            file.create_dataset(name, data=values)

    first = seal("shard", {"key": "k"}, plain)
    time.sleep(1.1)  # HDF5 notes times in seconds, where it does
    assert seal("shard", {"key": "k"}, plain) == first


def damages_seen(path: Path) -> Damage | None:
    """What `damage` says, once it is sure that whoever reads the file either sees right numbers or an error."""
    said = damage(path, "shard")
    with pytest.raises(StoreError):
        parse(path.read_bytes(), path, "shard")
    return said


@given(at=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path_factory, at, bit):
    data = bytearray(WHOLE)
    data[at] ^= 1 << bit
    assert damages_seen(put(tmp_path_factory.mktemp("flip"), bytes(data)))


@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_file_cut_short_is_found_at_once(tmp_path_factory, length):
    path = put(tmp_path_factory.mktemp("cut"), WHOLE[:length])
    with pytest.raises(StoreError):
        open_sealed(path, "shard")
    assert damages_seen(path)


def test_a_file_with_more_behind_it_is_found(tmp_path):
    assert damages_seen(put(tmp_path, WHOLE + b"x"))


@pytest.mark.parametrize("name", [name for name in ARRAYS if ARRAYS[name].size])
def test_the_dataset_that_is_damaged_is_named_and_no_other_one_suffers(tmp_path, name):
    table, _ = parse(WHOLE, tmp_path, "shard")
    data = bytearray(WHOLE)
    data[table.parts[name].offset] ^= 1
    path = put(tmp_path, bytes(data))
    assert damages_seen(path) == Damage(f"the SHA-256 of dataset {name!r} is not the recorded one", (name,))
    file, table = open_sealed(path, "shard")
    with file:
        with pytest.raises(StoreError, match=f"dataset {name!r} is not the recorded one"):
            read_part(file, path, "shard", table, name)
        with pytest.raises(StoreError, match=f"dataset {name!r} is not the recorded one"):
            prove_part(file, path, "shard", table, name)
        for other in ARRAYS.keys() - {name}:
            np.testing.assert_array_equal(read_part(file, path, "shard", table, other), ARRAYS[other])


def test_damage_between_the_datasets_is_told(tmp_path):
    data = bytearray(WHOLE)
    data[BLOCK_BYTES + 9] ^= 1
    found = damages_seen(put(tmp_path, bytes(data)))
    assert found == Damage("the SHA-256 of the HDF5 structure around the datasets is not the recorded one")


@pytest.mark.parametrize(
    "block", [b"", b"[]", b"{}", b"\xff" * 600, b'{"offshelf": "index", "sha256": "", "bytes": 0}']
)
def test_a_block_of_another_kind_is_refused(tmp_path, block):
    path = put(tmp_path, block.ljust(BLOCK_BYTES, b"\0"))
    with pytest.raises(StoreError, match="no shard of offshelf"):
        open_sealed(path, "shard")


def test_what_is_no_file_is_missing(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(StoreError, match="the shard is missing"):
            open_sealed(path, "shard")


def forged(change: dict[str, object], name: str = "n") -> bytes:
    """A sealed file whose every digest is right, and whose table lies."""
    length = int(WHOLE[-17:-1])
    image = WHOLE[BLOCK_BYTES : -sealed.FOOTER_BYTES - length]
    table = json.loads(WHOLE[-sealed.FOOTER_BYTES - length : -sealed.FOOTER_BYTES])
    table["parts"][name].update(change)
    return with_table(image, json.dumps(table).encode())


def with_table(image: bytes, line: bytes) -> bytes:
    body = image + line + sealed._footer(line)
    return sealed._block("shard", hashlib.sha256(body).hexdigest(), len(body)) + body


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1 << 50]},
        {"shape": [1 << 40, 1 << 40]},
        {"shape": [-1]},
        {"shape": [2.5]},
        {"shape": [True]},
        {"shape": [1, 1, 1, 1, 1]},
        {"shape": [0] * 5},
        {"shape": [0, 1 << 61]},
        {"shape": [0, 1 << 40, 1 << 40, 1 << 40]},
        {"shape": [1 << 70, 0]},
        {"shape": "3"},
        {"offset": -8},
        {"offset": 0},
        {"offset": 1 << 70},
        {"offset": len(WHOLE) - 20},
        {"offset": None},
        {"dtype": "O"},
        {"dtype": "|O"},
        {"dtype": "|S0"},
        {"dtype": "|S99999999999999999999"},
        {"dtype": "<f8,<f8"},
        {"dtype": ["<i8"]},
    ],
)
def test_a_table_that_claims_what_cannot_be_is_refused(tmp_path, change):
    path = put(tmp_path, forged(change))
    for look in (open_sealed, damage):
        with pytest.raises(UnreadableError, match="of another version"):
            look(path, "shard")


@pytest.mark.parametrize("line", [b"[]", b"{}", b"1", b"{" * 100_000, b'{"attributes": 1, "parts": {}}', b"\xff", b"x"])
def test_a_table_that_is_none_is_refused(tmp_path, line):
    with pytest.raises(UnreadableError, match="of another version"):
        open_sealed(put(tmp_path, with_table(b"", line)), "shard")


def test_the_same_content_is_known_and_a_damaged_file_is_not_the_same(tmp_path):
    other = seal("shard", {"key": "k", "format_version": 3, "odd": "caf\udce9"}, fill)[1]
    path = put(tmp_path)
    assert same_content(path, "shard", WHOLE, but=())
    assert not same_content(path, "shard", other, but=())
    assert same_content(path, "shard", other, but=("format_version",))
    assert not same_content(put(tmp_path, WHOLE[:-1] + b"x"), "shard", WHOLE, but=())
    assert not same_content(tmp_path / "none", "shard", WHOLE, but=())
