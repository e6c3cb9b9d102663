"""A file that h5py can write piece by piece: where the disk gets full it is an error, and not a crash."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Disk(io.RawIOBase):
    """A new file for HDF5, which never learns that its disk is full: `check` tells who writes.

    (h5py that meets a full disk crashes the process at exit: h5py issue 914. So what fails is kept to ourselves, and
    the rest of the file goes nowhere.)
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb+", buffering=0)
        self._at, self._end = 0, 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the OSError that a write has met."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        """Say where it is."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read what was written before, zeros where nothing was."""
        view = memoryview(buffer).cast("B")
        self._file.seek(self._at)
        n = self._file.readinto(view)
        view[n:] = bytes(len(view) - n)
        self._at += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        """Write all of `data`, or pretend to."""
        rest = memoryview(data).cast("B")
        n = len(rest)
        self._attempt(lambda: self._write(rest))
        self._at += n
        self._end = max(self._end, self._at)
        return n

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        self._end = self._at if size is None else size
        self._attempt(lambda: self._file.truncate(self._end))
        return self._end

    def finish(self) -> None:
        """Bring the file to the disk; raises OSError."""
        self.check()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        super().close()

    def _write(self, rest: memoryview) -> None:
        self._file.seek(self._at)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _attempt(self, step: Callable[[], object]) -> None:
        if self._error is None:
            try:
                step()
            except OSError as error:
                self._error = error
