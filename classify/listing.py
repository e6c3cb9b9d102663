"""INPUT... of `predict` -> records: files, folders, manifests, archives, torchvision's sets, and a list on stdin."""

import os
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


@dataclass(frozen=True)
class Images:
    """Records in the order of their answers, and how many they are; None for a list that is still being written."""

    records: Iterable[Record]
    n: int | None

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Images":
        """Take records whose number is known where they are a sequence."""
        return cls(records, len(records) if isinstance(records, Sequence) else None)


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
    return Images(chain(before, listed_paths(stdin, b"\0" if nul else b"\n", root)), None)


def listed_paths(stream: BinaryIO, end: bytes, root: Path | None = None) -> Iterator[Record]:
    """Yield a record for each path in a stream of bytes, its id as given; nothing is looked at, and empty ones pass.

    Raises SourceError at what is too long to be a path.
    """
    base = os.fspath(root.absolute() if root else Path.cwd())
    for piece in _pieces(stream, end):
        name = os.fsdecode(piece.removesuffix(b"\r") if end == b"\n" else piece)
        if name:
            yield Record(name, os.path.join(base, name))  # noqa: PTH118 a Path for each of a million takes longer


def _pieces(stream: BinaryIO, end: bytes) -> Iterator[bytes]:
    """Cut a stream into what ends in `end`, and the rest."""
    rest = b""
    read = getattr(stream, "read1", stream.read)  # what is there, and not only when it is so much
    while data := read(PIECE):
        *whole, rest = (rest + data).split(end)
        yield from whole
        if len(rest) > MAX_PATH:
            remedy = "Give one path a line; with -0, paths that end in NUL"
            raise SourceError(f"{len(rest)} bytes are no path", where="stdin", remedy=remedy)
    yield rest
