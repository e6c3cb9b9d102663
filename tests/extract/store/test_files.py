import errno
import os
import stat

import pytest

from extract.errors import StoreError
from extract.store import files


def test_what_is_published_is_whole_and_leaves_nothing_beside_it(tmp_path):
    files.publish(tmp_path / "new/er/a.h5", b"body")
    assert (tmp_path / "new/er/a.h5").read_bytes() == b"body"
    assert [path.name for path in (tmp_path / "new/er").iterdir()] == ["a.h5"]


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


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "link"])
def test_a_failing_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch, call):
    files.publish(tmp_path / "before", b"kept")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(StoreError, match=r"cannot be written \(3 bytes\) \(No space left on device\).*Make room"):
        files.publish(tmp_path / "new/a", b"one")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["before"]


def test_a_write_that_takes_only_some_bytes_goes_on(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(files.os, "write", lambda descriptor, data: real(descriptor, data[:2]))
    files.publish(tmp_path / "a", b"seven ")
    assert (tmp_path / "a").read_bytes() == b"seven "


def test_every_new_folder_has_its_name_on_disk_before_it_is_used(tmp_path, monkeypatch):
    done: list[str] = []
    real = {name: getattr(os, name) for name in ("mkdir", "fsync", "link")}

    def note(name: str):
        def call(*given: object, **named: object) -> object:
            what = (
                os.readlink(f"/proc/self/fd/{given[0]}") if name == "fsync" else str(given[-2 if name == "link" else 0])
            )
            done.append(f"{name} {os.path.basename(what)[:5]}")
            return real[name](*given, **named)

        return call

    for name in real:
        monkeypatch.setattr(files.os, name, note(name))
    files.publish(tmp_path / "one/two/a", b"x")
    top = tmp_path.name[:5]
    assert done == ["mkdir one", f"fsync {top}", "mkdir two", "fsync one", "fsync .tmp-", "link .tmp-", "fsync two"]


def test_where_there_are_no_links_a_rename_does(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", refuse)
    files.publish(tmp_path / "a", b"one")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"one")]


def test_removing_what_is_gone_is_no_error(tmp_path):
    files.publish(tmp_path / "a", b"one")
    files.remove([tmp_path / "a", tmp_path / "b", tmp_path / "none/c"])
    assert not list(tmp_path.iterdir())


def test_the_room_on_a_disk_is_that_of_the_nearest_folder_that_is_there(tmp_path):
    status = os.statvfs(tmp_path)
    for folder in (tmp_path, tmp_path / "not" / "yet"):
        assert files.free_bytes(folder) == pytest.approx(status.f_bavail * status.f_frsize, rel=0.1)
    assert not (tmp_path / "not").exists()


def test_a_disk_that_does_not_answer_is_told(tmp_path, monkeypatch):
    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.shutil, "disk_usage", fail)
    with pytest.raises(StoreError, match=r"cannot be looked at \(Input/output error\)"):
        files.free_bytes(tmp_path)
