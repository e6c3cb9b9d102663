"""Slots: memory that two processes share, where the pixels of an image pass from the one that decodes it.

A slot is a file without a name, mapped on both sides, and as large as the largest image that went through it lately.
"""

import contextlib
import mmap
import os
import tempfile

import numpy as np

KEPT_BYTES = 64 << 20
"""What a slot keeps for the next image: a photo of 20 megapixels."""


FILES = 1024
"""What a process may usually have open: all of its other needs."""


def allow_files(n: int) -> None:
    """Let this process have so many more files open, if it may: one decoder takes nine, and 128 cores as many of them.

    Where it may not, a decoder that cannot be started says so.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES + n if hard == resource.RLIM_INFINITY else min(FILES + n, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_slot() -> int:
    """Make an empty slot and return its descriptor, which a process that is started may inherit."""
    if hasattr(os, "memfd_create"):  # a temporary folder in memory is often small, and kills who fills it
        return os.memfd_create("offshelf")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class NoRoomError(MemoryError):
    """The machine has no memory, or its disk no room, for the pixels of an image."""


class Slot:
    """One side of a slot. Its descriptor is its owner's to close."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mapped: mmap.mmap | None = None

    def room(self, n_bytes: int) -> np.ndarray:
        """Make room for so many bytes, and return them (n,) uint8, to be written.

        Raises NoRoomError where the machine has none (on a full disk a write to the mapping would kill the process),
        and MemoryError where this process may take no more.
        """
        size = os.fstat(self._descriptor).st_size
        try:
            if size > KEPT_BYTES and n_bytes <= KEPT_BYTES:
                self._mapped = None
                os.ftruncate(self._descriptor, n_bytes)
            elif n_bytes > size:
                _extend(self._descriptor, n_bytes)
        except OSError as error:
            raise NoRoomError from error
        try:
            return self.bytes(n_bytes)
        except OSError as error:
            raise MemoryError from error

    def bytes(self, n_bytes: int) -> np.ndarray:
        """Return the first bytes of the slot (n,) uint8, which hold until the other side is told to go on."""
        if self._mapped is None or len(self._mapped) < n_bytes:
            self._mapped = mmap.mmap(self._descriptor, max(1, os.fstat(self._descriptor).st_size))
        return np.frombuffer(self._mapped, np.uint8, n_bytes)

    def leave(self) -> None:
        """Give back the addresses of an image larger than is kept: they count where a process limits its memory."""
        if self._mapped is not None and len(self._mapped) > KEPT_BYTES:
            self._mapped = None


def _extend(descriptor: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
    else:
        os.ftruncate(descriptor, n_bytes)
