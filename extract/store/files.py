"""Files that exist only when whole: a temporary name, fsync, then the real name, then fsync of the folder.

Whatever changes the disk in a cache goes through here, so that one list of system calls is all that can fail halfway.
"""

import contextlib
import errno
import itertools
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from extract.errors import StoreError

TEMPORARY = ".tmp-"
WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems answer that have no hard links, such as those of memory sticks; there a rename must do."""


def publish(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet; where another writer was faster, theirs stays (names tell the content)."""
    with _written(path, data) as temporary, contextlib.suppress(FileExistsError):
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in WITHOUT_LINKS:
                raise
            temporary.replace(path)


def replace(path: Path, data: bytes) -> None:
    """Write a file in place of an older one, in one step."""
    with _written(path, data) as temporary:
        temporary.replace(path)


def remove(paths: Iterable[Path]) -> None:
    """Remove files for good; those that are gone already are no error."""
    for folder, inside in itertools.groupby(paths, key=lambda path: path.parent):
        for path in inside:
            with told(path, "removed"), contextlib.suppress(FileNotFoundError):
                path.unlink()
        with told(folder, "written"), contextlib.suppress(FileNotFoundError):
            sync_folder(folder)


@contextlib.contextmanager
def _written(path: Path, data: bytes) -> Iterator[Path]:
    """A temporary file with `data`, on disk for good; on leaving, it is gone and the folder is on disk, too."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    with told(path, f"written ({len(data):,} bytes)"):
        try:
            make_folder(path.parent)
            _write(temporary, data)
            yield temporary
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        sync_folder(path.parent)


@contextlib.contextmanager
def told(path: Path, done: str) -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Make room or take another --cache; what is written is kept, and the next run goes on from there"
        raise StoreError(
            f"cannot be {done} ({error.strerror})",
            where=str(path),
            remedy=remedy if full else "Check the path and its permissions, or take another --cache",
        ) from error


def _write(path: Path, data: bytes) -> None:
    """Write a new file and bring it to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bytes_in(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(each.stat().st_size for each in (path, *path.rglob("*")) if each.is_file())


def free_bytes(folder: Path) -> int:
    """Bytes that are free for users on the disk of a folder, which need not exist yet; raises StoreError."""
    with told(folder, "looked at"):
        there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
        return shutil.disk_usage(there).free


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; each has its name on disk before anything is put into it."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if os.name != "posix":
        return  # only POSIX systems open a folder, and only there is it needed
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
