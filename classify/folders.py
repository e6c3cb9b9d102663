"""Folders and files that exist only when whole: filled under a temporary name, on disk for good, then renamed.

A process that is killed leaves its temporary folder behind. Who writes the same folder next removes it: the lock on it
has ended with its process.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from extract.errors import BundleError, OffshelfError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

NEW, OLD = ".new", ".old"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no room."""


def check_writable(folder: Path, error: type[OffshelfError]) -> None:
    """Raise `error` where `folder` could not be written; its parents exist afterwards."""
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=NEW, dir=folder.parent))
        with suppress(FileNotFoundError):  # who writes the folder at this moment takes it for a dead one's
            made.rmdir()
    except OSError as reason:
        raise _failed(folder, reason, error) from reason


@contextmanager
def whole_folder(folder: Path, error: type[OffshelfError] = BundleError) -> Iterator[Path]:
    """Fill a temporary folder beside `folder`; at the end it takes the name, at an error it goes.

    What the system refuses (no room, no right) is raised as `error`.
    """
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(folder)
        with _temporary(folder) as temporary:
            yield temporary
            for path in (*temporary.iterdir(), temporary):
                _fsync(path)
            _swap(temporary, folder, temporary.with_suffix(OLD))
        _remove_left(folder)
    except OSError as reason:
        raise _failed(folder, reason, error) from reason


@contextmanager
def whole_file(path: Path, error: type[OffshelfError] = BundleError) -> Iterator[Path]:
    """Write a temporary file beside `path`; at the end it takes the name, at an error it goes."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}{NEW}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            name_for_good(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as reason:
        raise _failed(path, reason, error) from reason


def name_for_good(temporary: Path, path: Path) -> None:
    """Bring a file to the disk, and give it its name there in one step; raises OSError."""
    _fsync(temporary)
    temporary.replace(path)
    _fsync(path.absolute().parent)


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """Make a temporary folder beside `folder`, locked; what is left of it at the end goes."""
    lock, made = None, None
    while made is None or not made.exists():  # removed before it was locked
        _release(lock)
        made = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}{NEW}")
        made.mkdir()
        lock = _lock(made)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        _release(lock)


def _remove_left(folder: Path) -> None:
    """Remove what killed processes left of writing this folder: new ones without a lock, old ones with a successor."""
    ours = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-z_]{{8}}({re.escape(NEW)}|{re.escape(OLD)})")
    with suppress(OSError):  # what cannot be looked at or removed may stay
        left = [path for path in folder.parent.iterdir() if ours.fullmatch(path.name)]
        replaced = folder.exists()  # asked after: while two are renamed the old one may be all there is
        for path in left:
            if path.suffix == OLD and replaced:
                shutil.rmtree(path, ignore_errors=True)
            elif path.suffix == NEW and (lock := _lock(path, wait=False)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                _release(lock)


def _lock(folder: Path, *, wait: bool = True) -> int | None:
    """Lock a folder until the descriptor is closed, or the process ends; None where somebody has it, or no locks are.

    Links are not followed.
    """
    if os.name != "posix" or fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _release(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _failed(folder: Path, reason: OSError, error: type[OffshelfError]) -> OffshelfError:
    remedy = "Make room or name another" if reason.errno in FULL else "Name a folder that can be written to"
    return error(f"cannot write ({reason.strerror or reason})", where=str(folder), remedy=remedy)


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
