from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import StoreError
from extract.store.sealed import BLOCK_BYTES, open_sealed, parse, prove_part, read_part, seal
from extract.store.whole import Damage, damage, same_content
from tests.extract.store.tiny_sealed import ARRAYS, WHOLE, fill, put


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


def test_the_same_content_is_known_and_a_damaged_file_is_not_the_same(tmp_path):
    other = seal("shard", {"key": "k", "format_version": 3, "odd": "caf\udce9"}, fill)[1]
    path = put(tmp_path)
    assert same_content(path, "shard", WHOLE, but=())
    assert not same_content(path, "shard", other, but=())
    assert same_content(path, "shard", other, but=("format_version",))
    assert not same_content(put(tmp_path, WHOLE[:-1] + b"x"), "shard", WHOLE, but=())
    assert not same_content(tmp_path / "none", "shard", WHOLE, but=())
