import os
import stat

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import StoreError
from extract.store import files


def a_file(path, body=b"body"):
    digest, data = files.sealed("shard", body)
    files.publish(path, data)
    return digest


def test_what_is_published_is_whole_and_leaves_nothing_beside_it(tmp_path):
    digest = a_file(tmp_path / "new" / "a.h5")
    assert files.verify(tmp_path / "new" / "a.h5", "shard") == digest
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.h5"]


def test_publishing_never_replaces_and_replacing_does(tmp_path):
    path = tmp_path / "a"
    files.publish(path, b"one")
    files.publish(path, b"two")
    assert path.read_bytes() == b"one"
    files.replace(path, b"three")
    assert path.read_bytes() == b"three"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_others_may_read_what_is_written(tmp_path):
    files.publish(tmp_path / "a", b"one")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) & 0o444 == 0o444 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@given(at=st.integers(0, files.HEADER_BYTES + 299), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path_factory, at, bit):
    path = tmp_path_factory.mktemp("flip") / "a"
    data = files.sealed("shard", bytes(range(100)) * 3)[1]
    damaged = bytearray(data)
    damaged[at] ^= 1 << bit
    path.write_bytes(damaged)
    with pytest.raises(StoreError):
        files.verify(path, "shard")


@given(length=st.integers(0, files.HEADER_BYTES + 299))
def test_a_file_cut_short_is_found(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("cut") / "a"
    path.write_bytes(files.sealed("shard", bytes(range(100)) * 3)[1][:length])
    with pytest.raises(StoreError):
        files.verify(path, "shard")


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"{}", b"\xff" * 600, b'{"offshelf": "index", "sha256": "", "bytes": 0}']
)
def test_a_header_of_another_kind_is_refused(tmp_path, header):
    (tmp_path / "a").write_bytes(header.ljust(files.HEADER_BYTES, b"\0"))
    with pytest.raises(StoreError, match="no shard of offshelf"):
        files.verify(tmp_path / "a", "shard")


def test_a_header_without_a_digest_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b'{"offshelf": "shard"}'.ljust(files.HEADER_BYTES, b"\0"))
    with pytest.raises(StoreError):
        files.verify(tmp_path / "a", "shard")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(StoreError, match="the shard is missing"):
        files.verify(tmp_path / "a", "shard")


def test_a_whole_file_that_is_not_the_expected_one_is_refused(tmp_path):
    a_file(tmp_path / "a")
    with pytest.raises(StoreError, match="damaged"):
        files.verify(tmp_path / "a", "shard", "0" * 64)


def test_equal_content_gives_equal_bytes_and_other_tools_open_it(tmp_path):
    def fill(file: h5py.File) -> None:
        file["x"] = np.arange(6.0).reshape(2, 3)

    images = [files.sealed("shard", files.hdf5_image(fill))[1] for _ in range(2)]
    assert images[0] == images[1]
    (tmp_path / "a.h5").write_bytes(images[0])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.userblock_size == files.HEADER_BYTES
        np.testing.assert_array_equal(file["x"][:], np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
def test_a_failing_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch, call):
    files.publish(tmp_path / "before", b"kept")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if call == "write":
        monkeypatch.setattr(files.os, "open", fail)
    else:
        monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(StoreError, match=r"cannot write 3 bytes \(No space left on device\)"):
        files.publish(tmp_path / "a", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["before"]
