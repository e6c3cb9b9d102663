"""One extraction of a feature set at a time: a lock that ends with its process, and says who holds it.

The parts of one extraction share it: they exclude what is not a part, and not each other. It saves double work and
nothing more. The cache stays right without it: shards are immutable, and the index is replaced in one step.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from extract.errors import StoreError
from extract.store import files

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

log = logging.getLogger(__name__)

POLL_S = 0.2
MOMENT_S = 0.5
"""How long a lock may be held by those who only look who holds it."""

AT_WORK = " is at work on it"
HELD = (errno.EAGAIN, errno.EACCES)
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def held(path: Path, *, wait: bool, on_wait: Callable[[str], None], shared: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the block runs: alone, or with others that hold it `shared`.

    Where another process holds it: raises StoreError saying who, or, with `wait`, tells `on_wait` and waits. Where the
    folder or the system takes no lock, goes on without one.
    """
    descriptor = _acquire(path, wait=wait, on_wait=on_wait, shared=shared)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                if not shared or _take(descriptor):  # of those who share it the last one removes it
                    path.unlink()
            with contextlib.suppress(OSError):
                os.close(descriptor)


def lock_of(folder: Path) -> Path:
    """Return the lock of a feature set: beside its folder, so that it can be held while that is removed."""
    return folder.with_name(f".{folder.name}.lock")


def holder(path: Path) -> str:
    """Say who is at work under a lock file, and leave it alone; "" where nobody is, or there is none."""
    descriptor = _open_there(path) if fcntl is not None else None
    if descriptor is None:
        return ""
    try:
        return _who(descriptor) + AT_WORK if _is_held(descriptor) else ""
    finally:
        os.close(descriptor)


def _is_held(descriptor: int) -> bool:
    """Tell whether somebody holds a lock for longer than those do who only look."""
    began = time.monotonic()
    while not _take(descriptor):
        if time.monotonic() - began > MOMENT_S:
            return True
        time.sleep(MOMENT_S / 10)
    return False


def _acquire(path: Path, *, wait: bool, on_wait: Callable[[str], None], shared: bool) -> int | None:
    told, began = False, time.monotonic()
    while (descriptor := _open(path)) is not None:
        if _take(descriptor, shared=shared):
            if _is_at(descriptor, path):
                _sign(descriptor, path)
                return descriptor
            os.close(descriptor)  # its last holder removed it meanwhile: a newer file is the lock now
            continue
        who = _who(descriptor)
        os.close(descriptor)
        if time.monotonic() - began < MOMENT_S:
            time.sleep(MOMENT_S / 10)
            continue
        if not wait:
            raise StoreError(who + AT_WORK, where=str(path.parent), remedy="Wait for it with --wait")
        if not told:
            on_wait(f"waiting for {who}")
            told = True
        time.sleep(POLL_S)
    return None


def _open(path: Path) -> int | None:
    """Open the lock file; None where there are no locks, or nothing can be written (who tries is told then)."""
    if fcntl is None:
        return None
    with files.told(path, "written"):
        try:
            files.make_folder(path.parent)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o644)
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
    return _open_there(path)


def _open_there(path: Path) -> int | None:
    """Open a lock file that exists, also that of another user, which can be held all the same; None for none."""
    for mode in (os.O_RDWR, os.O_RDONLY):  # over NFS only what may be written can be held
        with contextlib.suppress(OSError):
            return os.open(path, mode | os.O_NONBLOCK)
    return None


def _take(descriptor: int, *, shared: bool = False) -> bool:
    assert fcntl is not None  # noqa: S101 a descriptor exists only where it does
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        log.warning(
            "this file system has no locks (%s): two extractions at once would do the same work", error.strerror
        )
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int, path: Path) -> None:
    """Say in the lock who holds it; what is there already was left by a process that died."""
    if left := _said(descriptor):
        log.info("%s: %s died; taking over", path, left)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    said = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()
    with contextlib.suppress(OSError):  # a full disk: nobody learns who holds the lock, and that is all
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, said, 0)


def _who(descriptor: int) -> str:
    return _said(descriptor) or "another process"


def _said(descriptor: int) -> str:
    """Read who signed a lock, "" where nobody did."""
    try:
        said = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {int(said['pid'])} on {str(said['host'])!a} (since {str(said['since'])!a})"
    except (OSError, ValueError, TypeError, KeyError):
        return ""
