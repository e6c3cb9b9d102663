"""Sealed HDF5 files: known to be whole before anything is parsed, and read without HDF5.

    block     512 bytes, a user block to HDF5: a line of JSON with the kind, and SHA-256 and length of all that follows
    HDF5      an HDF5 file, for everyone
    table     a line of JSON: the root attributes; name, type, shape, place and SHA-256 of every dataset; then, in 81
              bytes, the SHA-256 of that line and its length

Readers of ours go by the table and take the bytes of a dataset from their place. HDF5 never parses a byte for them:
damaged and hostile HDF5 files crash and hang the library, read other files, and run plug-ins.
"""

import hashlib
import io
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from extract.errors import StoreError
from extract.store.damages import AGAIN, damaged, not_recorded, other_version, unreadable
from extract.store.texts import storable

if TYPE_CHECKING:
    import h5py

BLOCK_BYTES = 512
"""The smallest user block that HDF5 allows."""

FOOTER_BYTES = 81
"""After the table: its SHA-256 in hex, its length in 16 digits, a line feed."""

MAX_TABLE_BYTES = 16 << 20
MAX_RANK = 4
"""Of rows that are maps: (n, C, H, W)."""

MAX_SPAN = 1 << 62
"""Bytes that the shape of an array may span."""

TYPES = re.compile(r"\|u1|<i8|<f2|<f4|\|S[1-9][0-9]{0,8}")
"""Types of datasets; S is text of fixed length."""

Attributes = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Part:
    """One dataset of a sealed file: numpy's name of its type, its shape, its place in bytes from the file's begin."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    sha256: str

    @property
    def n_bytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Table:
    """What a sealed file says of itself: its SHA-256 (of all but the block), its size, attributes and datasets."""

    sha256: str
    n_bytes: int
    attributes: dict[str, Any]
    parts: dict[str, Part]


def seal(kind: str, attributes: Attributes, fill: Callable[["h5py.File"], None]) -> tuple[str, bytes]:
    """Build a sealed file in memory: its SHA-256 in hex, and its bytes.

    `fill` creates the datasets, contiguous or virtual. (h5py that meets a full disk crashes the process at exit, and
    what it appends to is lost to a kill; so it never writes to a disk here.)
    """
    import h5py  # to write alone: bundles answer without it

    name = secrets.token_hex(8)  # two files of one name would be one file to HDF5
    with h5py.File(name, "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        for attribute, value in attributes.items():
            file.attrs[attribute] = storable(value)
        fill(file)
        file.flush()
        image = file.id.get_file_image()
        table = {"attributes": dict(attributes), "parts": _parts(file, image)}
    line = json.dumps(table, separators=(",", ":")).encode()
    body, total = (image, line, _footer(line)), hashlib.sha256()
    for piece in body:
        total.update(piece)
    digest = total.hexdigest()
    return digest, b"".join([_block(kind, digest, sum(map(len, body))), *body])  # each copy of 64 MiB costs 30 ms


def _parts(file: "h5py.File", image: bytes) -> dict[str, Any]:
    """Say of every dataset that lies in the image where it does."""
    import h5py

    parts: dict[str, Any] = {}
    view = memoryview(image)

    def note(name: str, found: "h5py.Dataset | h5py.Group") -> None:
        if not isinstance(found, h5py.Dataset) or found.is_virtual:
            return
        start = found.id.get_offset() or 0
        digest = hashlib.sha256(view[start : start + found.nbytes]).hexdigest()
        parts[name] = asdict(Part(found.dtype.str, found.shape, BLOCK_BYTES + start, digest))

    file.visititems(note)
    return parts


def _block(kind: str, digest: str, n_bytes: int) -> bytes:
    said = json.dumps({"offshelf": kind, "sha256": digest, "bytes": n_bytes}).encode() + b"\n"
    return said.ljust(BLOCK_BYTES, b"\0")


def _footer(line: bytes) -> bytes:
    return f"{hashlib.sha256(line).hexdigest()}{len(line):016}\n".encode()


def open_sealed(path: Path, kind: str) -> tuple[BinaryIO, Table]:
    """Open a sealed file and read its table, for the price of two small reads; the datasets are not looked at.

    Raises StoreError where the file is missing, of another kind or size, or its table is damaged.
    """
    try:
        if not path.is_file():  # a pipe would hang whoever opens it
            raise StoreError(f"the {kind} is missing", where=str(path), remedy=AGAIN)
        file = path.open("rb")
    except OSError as error:
        raise unreadable(path, kind, error) from error
    try:
        return file, read_table(file, path, kind)
    except OSError as error:
        file.close()
        raise unreadable(path, kind, error) from error
    except StoreError:
        file.close()
        raise


def read_table(file: BinaryIO, path: Path, kind: str) -> Table:
    """Read the table of an open sealed file; raises StoreError where it is damaged, OSError where the disk fails."""
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    digest = _claimed(file.read(BLOCK_BYTES), n_bytes - BLOCK_BYTES, path, kind)
    file.seek(max(BLOCK_BYTES, n_bytes - FOOTER_BYTES))
    footer = file.read(FOOTER_BYTES)
    length = int(footer[64:80]) if footer[64:80].isdigit() else 0
    start = n_bytes - FOOTER_BYTES - length
    if not 0 < length <= MAX_TABLE_BYTES or start < BLOCK_BYTES:
        raise damaged(path, kind, "it has no table of its parts")
    file.seek(start)
    line = file.read(length)
    if _footer(line) != footer:
        raise damaged(path, kind, "the SHA-256 of the table of its parts is not the recorded one")
    try:
        value = json.loads(line)
        parts = {name: _part(said, start) for name, said in value["parts"].items()}
        return Table(digest, n_bytes, dict(value["attributes"]), parts)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise other_version(path, kind) from error


def _claimed(block: bytes, n_bytes: int, path: Path, kind: str) -> str:
    """Return the SHA-256 that a block claims. It is compared and not parsed: there is only one that can be right."""
    pattern = _block(kind, "?" * 64, max(0, n_bytes))
    start = pattern.index(b"?")
    if not block.startswith(pattern[: pattern.index(b",")]):
        raise StoreError(f"no {kind} of offshelf", where=str(path), remedy="Run extract again")
    digest = block[start : start + 64]
    if block != pattern.replace(b"?" * 64, digest) or not digest.isalnum():
        raise damaged(path, kind, "its first 512 bytes do not fit the rest")
    return digest.decode()


def _part(said: Any, end: int) -> Part:
    """Check one entry of a table: what it claims takes no memory yet, and lies inside the file."""
    part = Part(str(said["dtype"]), tuple(said["shape"]), said["offset"], str(said["sha256"]))
    if not all(type(size) is int and size >= 0 for size in (*part.shape, part.offset)) or len(part.shape) > MAX_RANK:
        raise ValueError("no shape")
    if not TYPES.fullmatch(part.dtype):
        raise ValueError("no type of ours")
    if math.prod(size for size in part.shape if size) * np.dtype(part.dtype).itemsize > MAX_SPAN:
        raise ValueError("no array has that shape")  # not even one without numbers, to numpy
    if part.offset < BLOCK_BYTES or part.offset + part.n_bytes > end:
        raise ValueError("beyond the file")
    return part


def read_part(file: BinaryIO, path: Path, kind: str, table: Table, name: str) -> np.ndarray:
    """Read one dataset whole, and prove it."""
    part = listed(path, kind, table, name)
    try:
        file.seek(part.offset)
        data = file.read(part.n_bytes)
    except OSError as error:
        raise unreadable(path, kind, error) from error
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise damaged(path, kind, f"the SHA-256 of the dataset {name!r} is not the recorded one")
    return np.frombuffer(data, part.dtype).reshape(part.shape)


def prove_part(file: BinaryIO, path: Path, kind: str, table: Table, name: str) -> Part:
    """Prove one dataset without keeping it. (Read, not mapped: a disk that fails is then an error and not a crash.)"""
    part = listed(path, kind, table, name)
    try:
        whole = digest_of(file, part.offset, part.n_bytes) == part.sha256
    except OSError as error:
        raise unreadable(path, kind, error) from error
    if not whole:
        raise damaged(path, kind, f"the SHA-256 of the dataset {name!r} is not the recorded one")
    return part


def listed(path: Path, kind: str, table: Table, name: str) -> Part:
    """Look a dataset up in the table; raises StoreError where it is not there."""
    if name not in table.parts:
        raise damaged(path, kind, f"it holds no dataset {name!r}")
    return table.parts[name]


def digest_of(file: BinaryIO, start: int, n_bytes: int) -> str:
    """SHA-256 of a stretch of a file, in hex; of less where the file ends."""
    total = hashlib.sha256()
    file.seek(start)
    while n_bytes > 0 and (chunk := file.read(min(n_bytes, 1 << 20))):
        total.update(chunk)
        n_bytes -= len(chunk)
    return total.hexdigest()


def parse(data: bytes, path: Path, kind: str) -> tuple[Table, dict[str, np.ndarray]]:
    """Prove every byte of a sealed file in memory, and return its table and its datasets, which share the memory."""
    table = read_table(io.BytesIO(data), path, kind)
    view = memoryview(data)
    if hashlib.sha256(view[BLOCK_BYTES:]).hexdigest() != table.sha256:
        bad = [n for n, p in table.parts.items() if hashlib.sha256(_slice(view, p)).hexdigest() != p.sha256]
        raise damaged(path, kind, not_recorded(bad))
    parts = table.parts.items()
    return table, {name: np.frombuffer(_slice(view, part), part.dtype).reshape(part.shape) for name, part in parts}


def _slice(view: memoryview, part: Part) -> memoryview:
    return view[part.offset : part.offset + part.n_bytes]
