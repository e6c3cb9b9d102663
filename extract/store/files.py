"""Files that exist only when whole: a temporary name, fsync, then the real name, then fsync of the folder.

Every file of ours opens with one block of `HEADER_BYTES`: a line that says what it is, the SHA-256 and the length of
the body, so that a file is known to be whole before HDF5 parses a byte of it (damaged HDF5 crashes and hangs the
library). HDF5 tools skip the block, as a user block.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import h5py

from extract.errors import StoreError

HEADER_BYTES = 512
"""The smallest user block that HDF5 allows."""

TEMPORARY = ".tmp-"


def hdf5_image(fill: Callable[[h5py.File], None]) -> bytes:
    """Build an HDF5 file in memory and return its bytes: h5py that meets a full disk crashes the process at exit."""
    name = secrets.token_hex(8)
    with h5py.File(name, "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        fill(file)
        file.flush()
        return file.id.get_file_image()


def sealed(kind: str, body: bytes) -> tuple[str, bytes]:
    """Put the header before a body: its SHA-256 in hex, and the bytes of the file."""
    digest = hashlib.sha256(body).hexdigest()
    return digest, _header(kind, digest, len(body)) + body


def _header(kind: str, digest: str, n_bytes: int) -> bytes:
    said = json.dumps({"offshelf": kind, "sha256": digest, "bytes": n_bytes}).encode() + b"\n"
    return said.ljust(HEADER_BYTES, b"\0")


def verify(path: Path, kind: str, expected: str | None = None) -> str:
    """Check every byte of a sealed file, and its digest against one known elsewhere; return the digest.

    Raises StoreError where the file is missing, of another kind, incomplete or changed. The header is not parsed: there
    is only one that belongs to a body.
    """
    remedy = "Run extract again: it makes anew what is lost"
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            n_bytes = file.tell() - len(header)
    except FileNotFoundError as error:
        raise StoreError(f"the {kind} is missing", where=str(path), remedy=remedy) from error
    except OSError as error:
        raise StoreError(f"the {kind} cannot be read ({error.strerror})", where=str(path), remedy=remedy) from error
    if not header.startswith(f'{{"offshelf": "{kind}"'.encode()):
        raise StoreError(f"no {kind} of offshelf", where=str(path), remedy=remedy)
    if header != _header(kind, digest, n_bytes) or digest != (expected or digest):
        raise StoreError(f"the {kind} is damaged: its SHA-256 is not the recorded one", where=str(path), remedy=remedy)
    return digest


def publish(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet; where another writer was faster, theirs stays (names tell the content)."""
    with _written(path, data) as temporary, contextlib.suppress(FileExistsError):
        os.link(temporary, path)


def replace(path: Path, data: bytes) -> None:
    """Write a file in place of an older one, in one step."""
    with _written(path, data) as temporary:
        temporary.replace(path)


def remove(path: Path) -> None:
    """Remove a file that is no good."""
    try:
        path.unlink()
    except OSError as error:
        raise StoreError(f"cannot be removed ({error.strerror})", where=str(path), remedy="Remove it") from error


class _written:  # noqa: N801 a context manager that reads as a verb
    """A temporary file with `data`, on disk for good; on leaving, it is gone and the folder is on disk, too."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data = path, data
        self.temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")

    def __enter__(self) -> Path:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(
                self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644
            )
            with open(descriptor, "wb", closefd=True) as file:  # noqa: PTH123 a descriptor
                file.write(self.data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self.temporary.unlink()
            raise self._failed(error) from error
        return self.temporary

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        self.temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise self._failed(error) from error
        if error is None:
            _sync_folder(self.path.parent)

    def _failed(self, error: OSError) -> StoreError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Make room or take another --cache; what is written is kept, and the next run goes on from there"
        return StoreError(
            f"cannot write {len(self.data):,} bytes ({error.strerror})",
            where=str(self.path),
            remedy=remedy if full else "Check the path and its permissions, or take another --cache",
        )


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # only POSIX systems open a folder, and only there is it needed
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
