import hashlib
import json
import time

import h5py
import numpy as np
import pytest

from extract.errors import StoreError, UnreadableError
from extract.store import sealed
from extract.store.sealed import BLOCK_BYTES, open_sealed, parse, read_part, seal
from extract.store.whole import damage
from tests.extract.store.tiny_sealed import ARRAYS, DIGEST, WHOLE, put


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
