"""Bundles as one .zip whose author means harm: each is refused before a byte of it counts, and nothing stays."""

import pickle
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from classify import archive
from classify.archive import read_run, unpack, write_archive
from classify.manifest import FILES, MANIFEST
from extract.errors import BundleError
from tests.tiny_bundle import make_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("archive")
    write_archive(make_run(work, per_class=2) / "bundle", work / "run.zip")
    return work / "run.zip"


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """Where temporary folders are made; nothing else is."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(archive.tempfile, "mkdtemp", lambda prefix: str(make_folder(tmp_path / "scratch" / prefix)))
    return tmp_path / "scratch"


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.fixture
def refused(scratch) -> Callable[[Path], str]:
    def refuse(path: Path) -> str:
        with pytest.raises(BundleError) as caught:
            read_run(str(path))
        assert len(str(caught.value).splitlines()) == 1
        assert str(path) in caught.value.where
        assert str(scratch) not in str(caught.value)
        assert caught.value.remedy
        assert list(scratch.iterdir()) == []
        return str(caught.value)

    return refuse


def members(whole: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(whole) as file:
        return {name: file.read(name) for name in file.namelist()}


def make(path: Path, files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], object] = lambda _: None) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            change(member)
            file.writestr(member, data)
    return path


def test_the_archive_as_it_was_is_read(whole, tmp_path, scratch):
    assert read_run(str(make(tmp_path / "same.zip", members(whole)))).classes == ["cat", "dog"]
    assert len(members(whole)) == 5


@pytest.mark.parametrize(
    "name",
    ["../evil", "/evil", "..\\evil", "C:\\evil", "bundle/bundle.json", "more.txt", "head.pkl", "recipe.json/", "", "é"],
)
def test_a_member_of_another_name_is_refused(whole, tmp_path, refused, name):
    assert "not a bundle of ours: it holds" in refused(make(tmp_path / "a.zip", {**members(whole), name: b"x"}))
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR])
def test_a_link_pipe_or_device_is_refused(whole, tmp_path, refused, kind):
    def odd(member: zipfile.ZipInfo) -> None:
        member.create_system, member.external_attr = 3, (kind | 0o777) << 16

    assert "is no plain file" in refused(make(tmp_path / "a.zip", members(whole), odd))


def test_a_packed_member_is_refused_and_never_unpacked(whole, tmp_path, refused):
    def pack(member: zipfile.ZipInfo) -> None:
        member.compress_type = zipfile.ZIP_DEFLATED

    bomb = {**members(whole), "head.safetensors": bytes(64 << 20)}
    path = make(tmp_path / "a.zip", bomb, pack)
    assert path.stat().st_size < 16 << 20
    assert "is packed" in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(whole, tmp_path, refused):
    path = make(tmp_path / "a.zip", members(whole))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("recipe.json", b"{}")
    assert "twice" in refused(path)


def in_list(path: Path, name: str, offset: int, form: str, value: int) -> Path:
    """Change a field of a member in the list at the end, at that offset of its entry."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2", 0, data.rindex(name.encode()))
    struct.pack_into(form, data, at + offset, value)
    path.write_bytes(data)
    return path


def test_an_encrypted_member_is_refused(whole, tmp_path, refused):
    path = in_list(make(tmp_path / "a.zip", members(whole)), "head.safetensors", 8, "<H", 1)
    assert "head.safetensors is encrypted" in refused(path)


@pytest.mark.parametrize("size", [10, 1 << 31])
def test_a_member_that_says_another_size_is_refused(whole, tmp_path, refused, size):
    path = make(tmp_path / "a.zip", members(whole))
    for offset in (20, 24):
        in_list(path, "head.safetensors", offset, "<L", size)
    said = refused(path)
    assert "larger than itself" in said or "CRC" in said or "content is not what was written" in said, said


def test_a_member_beyond_its_cap_is_refused(whole, tmp_path, refused, monkeypatch):
    monkeypatch.setitem(archive.MAX_BYTES, "recipe.json", 10)
    assert "are more than 10" in refused(make(tmp_path / "a.zip", members(whole)))


def test_members_that_overlap_are_refused(whole, tmp_path, refused):
    path = make(tmp_path / "a.zip", members(whole))
    assert refused(in_list(path, "recipe.json", 42, "<L", 0))


def test_more_members_than_a_bundle_has_are_not_even_listed(whole, tmp_path, refused, monkeypatch):
    path = make(tmp_path / "a.zip", {f"{i}": b"" for i in range(2000)})
    monkeypatch.setattr(archive.zipfile, "ZipFile", None)
    assert "2000 members" in refused(path)


def test_a_list_of_64_bits_is_refused_before_it_is_read(whole, tmp_path, refused, monkeypatch):
    data = make(tmp_path / "a.zip", members(whole)).read_bytes()
    locator = b"PK\6\7" + bytes(16)
    end = bytearray(data[-22:])
    struct.pack_into("<L", end, 12, struct.unpack_from("<L", end, 12)[0] + len(locator))
    (tmp_path / "a.zip").write_bytes(data[:-22] + locator + bytes(end))
    monkeypatch.setattr(archive.zipfile, "ZipFile", None)
    assert "does not end with a list" in refused(tmp_path / "a.zip")


@pytest.mark.parametrize("change", ["cut", "comment", "behind", "before", "empty", "text"])
def test_what_is_no_archive_of_ours_is_refused(whole, tmp_path, refused, change):
    data = whole.read_bytes()
    changed = {
        "cut": data[:-1],
        "comment": data[:-2] + b"\3\0abc",
        "behind": data + b"abc",
        "before": b"abc" + data,
        "empty": b"",
        "text": b"bundle" * 99,
    }
    (tmp_path / "a.zip").write_bytes(changed[change])
    assert "not a bundle of ours" in refused(tmp_path / "a.zip")


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_file_that_lacks_or_was_changed_is_refused(whole, tmp_path, refused, name):
    files = members(whole)
    assert refused(make(tmp_path / "a.zip", {n: data for n, data in files.items() if n != name}))
    changed = files[name][:-1] + bytes([files[name][-1] ^ 1])
    assert refused(make(tmp_path / "b.zip", {**files, name: changed}))


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return shutil.copy, (str(self.path), f"{self.path}.run")


def test_a_pickle_in_the_place_of_a_file_is_never_run(whole, tmp_path, refused):
    (tmp_path / "canary").touch()
    files = {**members(whole), "head.safetensors": pickle.dumps(Canary(tmp_path / "canary"))}
    assert refused(make(tmp_path / "a.zip", files))
    assert not (tmp_path / "canary.run").exists()


def test_a_member_never_replaces_what_is_there(whole, tmp_path):
    (tmp_path / "bundle.json").write_text("mine")
    with pytest.raises(BundleError, match="cannot be unpacked"):
        unpack(whole, tmp_path)
    assert (tmp_path / "bundle.json").read_text() == "mine"
