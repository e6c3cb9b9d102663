"""Folders that exist only when whole: filled under a temporary name, on disk for good, then renamed in one step."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from extract.errors import BundleError, OffshelfError


def check_writable(folder: Path, error: type[OffshelfError]) -> None:
    """Raise `error` where `folder` could not be written; its parents exist afterwards."""
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".new", dir=folder.parent)).rmdir()
    except OSError as reason:
        raise _failed(folder, reason, error) from reason


@contextmanager
def whole_folder(folder: Path, error: type[OffshelfError] = BundleError) -> Iterator[Path]:
    """Fill a temporary folder beside `folder`; at the end it takes the name, at an error it goes.

    What the system refuses (no room, no right) is raised as `error`.
    """
    folder = folder.resolve()
    temporary, old = (folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.{what}") for what in ("new", "old"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            _fsync(path)
        _swap(temporary, folder, old)
    except OSError as reason:
        raise _failed(folder, reason, error) from reason
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _failed(folder: Path, reason: OSError, error: type[OffshelfError]) -> OffshelfError:
    return error(f"cannot write ({reason.strerror or reason})", where=str(folder), remedy="Make room or name another")


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Give `new` the name `folder`; what had it goes, and comes back where that fails."""
    had = folder.exists()
    if had:
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if had:
            old.rename(folder)
        raise
    _fsync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _fsync(path: Path) -> None:
    if os.name != "posix":
        return  # only POSIX systems open a folder, and sync a file that is open for reading
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
