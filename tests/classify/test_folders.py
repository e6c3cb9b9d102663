import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from classify import folders
from classify.folders import check_writable, whole_folder
from extract.errors import BundleError, FitError


def fill(folder: Path, error: OSError) -> None:
    with whole_folder(folder) as temporary:
        (temporary / "new").write_text("new")
        raise error


def test_a_folder_that_fails_halfway_leaves_what_was_there(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("old")
    with pytest.raises(BundleError, match=r"run: cannot write \(No space left on device\)"):
        fill(tmp_path / "run", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["run", "run/old"]


def test_a_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FitError, match="cannot write"):
        check_writable(tmp_path / "file" / "run", FitError)
    with pytest.raises(FitError, match="cannot write"), whole_folder(tmp_path / "file" / "run", FitError):
        pass


def test_the_check_leaves_nothing_but_the_parents(tmp_path):
    check_writable(tmp_path / "a" / "b" / "run", FitError)
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "Make room or name another"), (errno.EROFS, "Name a folder that can be written to")],
)
def test_only_where_the_disk_is_full_room_is_asked_for(tmp_path, monkeypatch, number, remedy):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr("classify.folders.tempfile.mkdtemp", refuse)
    with pytest.raises(FitError) as caught:
        check_writable(tmp_path / "run", FitError)
    assert caught.value.remedy == remedy


def test_folders_are_synced_only_where_they_can_be_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("classify.folders.os", SimpleNamespace(name="nt"))
    with whole_folder(tmp_path / "run") as temporary:
        (temporary / "new").write_text("new")
    assert (tmp_path / "run" / "new").exists()


def test_links_and_foreign_names_beside_a_folder_stay(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / ".run.01234567.new").symlink_to(tmp_path / "mine")
    for name in (
        ".run.notes.new",
        ".run.01234567.txt",
        ".run.01234567-new",
        ".run.b.01234567.new",
        ".other.01234567.new",
    ):
        (tmp_path / name).mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    with whole_folder(tmp_path / "run") as temporary:
        (temporary / "new").write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == before | {"run"}


def test_a_temporary_folder_that_is_removed_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    lock, taken = folders._lock, []

    def late(folder, *, wait=True):
        if not taken:
            taken.append(folder)
            folder.rmdir()
        return lock(folder, wait=wait)

    monkeypatch.setattr(folders, "_lock", late)
    with whole_folder(tmp_path / "run") as temporary:
        assert [temporary] != taken
        (temporary / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "new"]


def test_a_check_whose_folder_another_writer_removes_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path / "gone"))
    check_writable(tmp_path / "run", FitError)
