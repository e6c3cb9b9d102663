"""INPUT... of `predict` -> records: files, folders, manifests, archives, torchvision's sets, and a list on stdin."""

import os
import select
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from extract.errors import SourceError
from extract.record import Record
from extract.sources import list_images

STDIN = "-"
PIECE = 1 << 16
MAX_PATH = 1 << 16
"""Bytes: what is longer is no path, and is refused before it fills the memory."""
PAUSE_S = 0.2
"""Seconds without a path, after which those that have come are answered, however few they are."""


@dataclass(frozen=True)
class Images:
    """Records in the order of their answers, and how many they are; None for a list that is still being written."""

    records: Iterable[Record]
    n: int | None

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Images":
        """Take records whose number is known where they are a sequence."""
        return cls(records, len(records) if isinstance(records, Sequence) else None)

    def bursts(self) -> Iterator[Iterator[Record]]:
        """Yield the records in as many parts as their list has pauses; each is to be used up before the next."""
        if isinstance(self.records, Listed):
            yield from self.records.bursts()
        else:
            yield iter(self.records)


def records_of(inputs: tuple[str, ...], root: Path | None = None) -> tuple[Record, ...]:
    """List the images of files, folders, manifests and archives, sorted by id; `root` is for manifests and torchvision.

    Raises SourceError for what is not there, and for a root that none of them takes.
    """
    return list_images([Path(each) for each in inputs], root)


def images_of(inputs: tuple[str, ...], root: Path | None, stdin: BinaryIO, *, nul: bool = False) -> Images:
    """List INPUT...: `-` stands for paths on stdin, behind all others and in their own order, read as they come.

    Paths end in a line feed, or in NUL; relative ones are below `root`, where it is given.
    """
    named = tuple(each for each in inputs if each != STDIN)
    if len(inputs) - len(named) > 1:
        raise SourceError("stdin is named twice", where=STDIN, remedy="Name it once")
    if len(named) == len(inputs):
        return Images.of(records_of(named, root))
    before = records_of(named) if named else ()
    return Images(Listed(stdin, b"\0" if nul else b"\n", root, before), None)


class Listed(Iterator[Record]):
    """A record for each path in a stream of bytes, behind those of `before`; its id is the path as given.

    Nothing is looked at, and empty paths are passed over. Raises SourceError at what is too long to be a path.
    """

    def __init__(self, stream: BinaryIO, end: bytes, root: Path | None = None, before: Iterable[Record] = ()) -> None:
        self._stream, self._end = stream, end
        self._base = os.fspath(root.absolute() if root else Path.cwd())
        self._come, self._rest, self._over = deque(before), b"", False
        self._read = getattr(stream, "read1", stream.read)  # what is there, and not only when it is so much

    def __next__(self) -> Record:
        """Return the next record, which is waited for."""
        while not self._come:
            if self._over:
                raise StopIteration
            self._fill()
        return self._come.popleft()

    def bursts(self) -> Iterator[Iterator[Record]]:
        """Yield the records in parts, each of which ends where nothing more comes for PAUSE_S seconds."""
        for first in self:
            yield chain([first], self._until_pause())

    def _until_pause(self) -> Iterator[Record]:
        while self._come or (not self._over and _comes(self._stream, PAUSE_S)):
            if self._come:
                yield self._come.popleft()
            else:
                self._fill()

    def _fill(self) -> None:
        """Take what there is in the stream."""
        if len(self._rest) > MAX_PATH:
            remedy = "Give one path a line; with -0, paths that end in NUL"
            raise SourceError(f"{len(self._rest)} bytes are no path", where="stdin", remedy=remedy)
        data = self._read(PIECE)
        *whole, self._rest = (self._rest + data).split(self._end)
        self._over = not data
        self._come.extend(self._records([*whole, self._rest] if self._over else whole))

    def _records(self, pieces: Iterable[bytes]) -> Iterator[Record]:
        for piece in pieces:
            name = os.fsdecode(piece.removesuffix(b"\r") if self._end == b"\n" else piece)
            if name:
                yield Record(name, os.path.join(self._base, name))  # noqa: PTH118 a Path for each of a million takes longer


def _comes(stream: BinaryIO, timeout_s: float) -> bool:
    """Tell whether a stream has more to say, or its end, within so many seconds; True where that cannot be asked."""
    try:
        return bool(select.select([stream], [], [], timeout_s)[0])
    except (OSError, ValueError, TypeError):
        return True  # bytes in memory; and systems that can ask this of sockets alone
