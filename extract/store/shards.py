"""Shards: immutable files of some thousand rows each, named by their content.

A shard knows rows by the SHA-256 of their image's bytes, and nothing of names, labels or order. Its datasets, one row
per image: `/layers/<layer>` (n, D) or (n, C, H, W), `/sha256` (n, 32) uint8, `/status` (n,) uint8, `/errors` (n,)
text. They are contiguous and uncompressed, so that rows can be mapped from the file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extract.errors import StoreError
from extract.record import Failure, Status
from extract.store import files
from extract.store.damages import REPAIR, damaged, other_version
from extract.store.sealed import Attributes, Table, listed, open_sealed, parse, read_part, seal
from extract.store.texts import text_array
from extract.store.whole import damage

if TYPE_CHECKING:
    import h5py

KIND, FORMAT_VERSION = "shard", 1
NAME_DIGITS = 32
KNOWN_BY_CONTENT = ("sha256", "status", "errors")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one shard: per layer (n, D) or (n, C, H, W); digests (n, 32) uint8; a Failure, or None, per row."""

    layers: dict[str, np.ndarray]
    digests: np.ndarray
    failures: list[Failure | None]

    @property
    def bad(self) -> int:
        """How many rows hold a Failure."""
        return sum(failure is not None for failure in self.failures)

    def first(self, n: int) -> "Rows":
        """Return the first n rows."""
        return Rows({name: rows[:n] for name, rows in self.layers.items()}, self.digests[:n], self.failures[:n])


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard on disk: its file name, SHA-256 and size, what wrote it, and what it knows of its rows.

    `status` (n,) uint8; `errors` as bytes (n,), empty for rows that are fine.
    """

    name: str
    sha256: str
    n_bytes: int
    writer: str
    digests: np.ndarray
    status: np.ndarray
    errors: np.ndarray

    def __len__(self) -> int:
        return len(self.status)


def write_shard(folder: Path, rows: Rows, key: str, writer: str = "") -> str:
    """Write the rows of the recipe `key` as one file into `folder`, on disk for good when this returns: its name.

    `writer` says in JSON what computed them; equal rows of one writer make equal files.
    """

    def fill(file: "h5py.File") -> None:
        for name, values in rows.layers.items():
            file.create_dataset(f"layers/{name}", data=values)
        file.create_dataset("sha256", data=rows.digests)
        file.create_dataset("status", data=np.array([f.status if f else Status.OK for f in rows.failures], np.uint8))
        file.create_dataset("errors", data=text_array([f.reason if f else "" for f in rows.failures]))

    attributes: Attributes = {"format_version": FORMAT_VERSION, "key": key, "writer": writer}
    digest, data = seal(KIND, attributes, fill)
    path = folder / name_of(digest)
    keep_shard(path, data)
    return path.name


def keep_shard(path: Path, data: bytes) -> None:
    """Write a whole shard under its name, in place of one that is damaged; one that is there already stays."""
    if path.exists() and damage(path, KIND):
        files.replace(path, data)
    else:
        files.publish(path, data)


def name_of(digest: str) -> str:
    """Return the file name of a shard of that SHA-256."""
    return f"{digest[:NAME_DIGITS]}.h5"


def read_shard(path: Path, key: str, *, thorough: bool = False) -> Shard:
    """Read what a shard knows of its rows; raises StoreError where that is damaged or of another recipe than `key`.

    The rows themselves are proven when they are read, or here if `thorough`.
    """
    if thorough and (found := damage(path, KIND)):
        raise damaged(path, KIND, found.what)
    file, table = open_sealed(path, KIND)
    with file:
        _check_table(table, path, key)
        known = [read_part(file, path, KIND, table, name) for name in KNOWN_BY_CONTENT]
        digests, status, errors = _of_one_length(known, path)
        writer = str(table.attributes.get("writer", ""))
        return Shard(path.name, table.sha256, table.n_bytes, writer, digests, status, errors)


def prove_shard(data: bytes, path: Path, key: str) -> None:
    """Raise StoreError unless a file in memory is whole, and the shard of that path and of the recipe `key`."""
    table, parts = parse(data, path, KIND)
    _check_table(table, path, key)
    for name in KNOWN_BY_CONTENT:
        listed(path, KIND, table, name)
    _of_one_length([parts[name] for name in KNOWN_BY_CONTENT], path)


def _check_table(table: Table, path: Path, key: str) -> None:
    if path.name != name_of(table.sha256):
        raise damaged(path, KIND, "its name is not that of its content")
    if table.attributes.get("format_version") != FORMAT_VERSION:
        raise other_version(path, KIND)
    if table.attributes.get("key") != key:
        raise StoreError("the shard is of another recipe", where=str(path), remedy=REPAIR)


def _of_one_length(known: Sequence[np.ndarray], path: Path) -> Sequence[np.ndarray]:
    """Return what a shard knows by content, if it is of as many rows."""
    digests, status, errors = known
    whole = status.ndim == 1 and errors.shape == status.shape and digests.shape == (len(status), 32)
    if not whole or digests.dtype != np.uint8:
        raise damaged(path, KIND, "its datasets are not of one length")
    return known


def shards_in(folder: Path) -> Iterator[Path]:
    """List the shards of a folder by name; temporary files of a killed run end otherwise."""
    return iter(sorted(folder.glob("*.h5")))
