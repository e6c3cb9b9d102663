"""Which JPEG files a device may decode: a check of the whole header in Python, before any library sees a byte.

Only the plain case is let through, of which every decoder makes the same: baseline, grey or YCbCr, one scan, whole,
upright. What is left out goes the ordinary way and costs time, not rows. Among it are progressive files: each of
their scans costs as much time as an image, there may be thousands, and nobody limits the time of a device. Without
torch, so that a process that decodes is started in a moment.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from extract.images import ORIENTATION, too_large

MAX_SEGMENTS = 600
"""Of one header; an ICC profile may take 255."""

MIN_SIDE = 64
"""In pixels; AMD's decoder takes none below, and there is nothing to gain."""

START, SCAN, END = 0xD8, 0xDA, 0xD9
BASELINE = 0xC0
QUANTISATION, HUFFMAN, RESTART = 0xDB, 0xC4, 0xDD
EXIF, ADOBE = 0xE1, 0xEE
PASSIVE = {*range(0xE0, 0xF0), 0xFE}
"""Application data and comments."""

SAMPLINGS = {
    (0x11,),
    (0x11, 0x11, 0x11),
    (0x21, 0x11, 0x11),
    (0x22, 0x11, 0x11),
    (0x12, 0x11, 0x11),
}
"""Horizontal and vertical sampling factors: grey, 4:4:4, 4:2:2, 4:2:0, 4:4:0."""

MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")
"""Anything in the data of a scan that is neither data nor a restart."""


class _OddError(Exception):
    """The file is not the plain case."""


@dataclass(slots=True)
class _Header:
    """What the segments in front of the scan have said."""

    width: int = 0
    height: int = 0
    components: list[tuple[int, int, int]] = field(default_factory=list)
    quantisation: set[int] = field(default_factory=set)
    huffman: set[int] = field(default_factory=set)
    exif: int = 0

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """Read up to the scan, and return where its segment begins."""
        header = cls()
        for marker, begin, end in _segments(data):
            if marker == SCAN:
                return header, begin
            _require(marker in READERS or marker in PASSIVE)
            if reader := READERS.get(marker):
                reader(header, data[begin:end])
        raise _OddError


def eligible(data: bytes) -> bool:
    """Tell whether a device may decode these bytes, whatever they are; never raises."""
    try:
        header, begin = _Header.read(data)
        _check_scan(header, data, begin)
    except (_OddError, struct.error, IndexError):
        return False
    return True


def _require(holds: bool) -> None:
    if not holds:
        raise _OddError


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each segment: its marker, and where its content begins and ends."""
    _require(data[:2] == bytes([0xFF, START]))
    at = 2
    for _ in range(MAX_SEGMENTS):
        first, marker, size = struct.unpack_from(">BBH", data, at)
        _require(first == 0xFF and at + 2 + size <= len(data))
        yield marker, at + 4, at + 2 + size
        at += 2 + size


def _read_frame(header: _Header, content: bytes) -> None:
    precision, header.height, header.width, n_components = struct.unpack_from(">BHHB", content)
    _require(not header.components and precision == 8 and len(content) == 6 + 3 * n_components)
    header.components = [(content[i], content[i + 1], content[i + 2]) for i in range(6, len(content), 3)]
    _require(tuple(sampling for _, sampling, _ in header.components) in SAMPLINGS)
    # Of other names some decoders make other colours; and one alone may have any.
    _require(n_components == 1 or [name for name, _, _ in header.components] == [1, 2, 3])
    _require(min(header.width, header.height) >= MIN_SIDE and not too_large((header.width, header.height)))


def _read_quantisation(header: _Header, content: bytes) -> None:
    tables = content[::65]
    _require(len(content) % 65 == 0 < len(content) and max(tables) < 4)
    header.quantisation.update(tables)


def _read_huffman(header: _Header, content: bytes) -> None:
    at = 0
    while at < len(content):
        counts = content[at + 1 : at + 17]
        _require(len(counts) == 16 and content[at] in (0x00, 0x01, 0x10, 0x11))
        # More codes than there are bits for (Kraft's inequality) lead decoders astray.
        _require(0 < sum(counts) <= 256 and sum(n << (15 - i) for i, n in enumerate(counts)) <= 1 << 16)
        header.huffman.add(content[at])
        at += 17 + sum(counts)
    _require(at == len(content))


def _read_restart(header: _Header, content: bytes) -> None:
    _require(len(content) == 2)


def _read_adobe(header: _Header, content: bytes) -> None:
    """Refuse colours other than YCbCr."""
    _require(not content.startswith(b"Adobe") or (len(content) == 12 and content[11] == 1))


def _read_exif(header: _Header, content: bytes) -> None:
    _require(b"tiff:Orientation" not in content)  # as XMP, which counts where EXIF says nothing
    if content.startswith(b"Exif"):
        header.exif += 1
        _require(header.exif == 1 and content[4:6] == bytes(2) and _orientation(content[6:]) == 1)


def _orientation(tiff: bytes) -> int:
    """Return the orientation in a block of EXIF data, 1 where there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    _require(order is not None)
    [at] = struct.unpack_from(f"{order}I", tiff, 4)
    [n_entries] = struct.unpack_from(f"{order}H", tiff, at)
    for i in range(n_entries):
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, at + 2 + 12 * i)
        if tag == ORIENTATION:
            _require((kind, count) == (3, 1))
            return value
    return 1


READERS = {
    BASELINE: _read_frame,
    QUANTISATION: _read_quantisation,
    HUFFMAN: _read_huffman,
    RESTART: _read_restart,
    ADOBE: _read_adobe,
    EXIF: _read_exif,
}
"""What is read of each kind of segment. All others but PASSIVE ones are odd."""


def _check_scan(header: _Header, data: bytes, begin: int) -> None:
    """Require one scan of all components, whose tables are there, and nothing behind it but the end of the image."""
    n_components = data[begin]
    _require(0 < n_components == len(header.components))
    end = begin + 4 + 2 * n_components
    [size] = struct.unpack_from(">H", data, begin - 2)
    _require(size == 6 + 2 * n_components and data[end - 3 : end] == bytes([0, 63, 0]))
    for i, (name, _, table) in enumerate(header.components):
        chosen, coding = data[begin + 1 + 2 * i], data[begin + 2 + 2 * i]
        _require(chosen == name and table in header.quantisation)
        _require({coding >> 4, 0x10 | coding & 15} <= header.huffman)
    stop = MARKER.search(data, end)
    _require(stop is not None and stop.start() == len(data) - 2 and data[-1] == END)
    _require(8 * (len(data) - 2 - end) >= _least_bits(header))


def _least_bits(header: _Header) -> int:
    """Return how many bits an image takes at least: a block of 8 x 8 takes two codes. With less it is cut short."""
    across, down = divmod(header.components[0][1], 16)
    units = -(-header.width // (8 * across)) * -(-header.height // (8 * down))
    return 2 * units * (across * down + len(header.components) - 1)
