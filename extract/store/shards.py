"""Shards: immutable HDF5 files of some thousand rows each, named by their content.

A shard knows rows by the SHA-256 of their image's bytes, and nothing of names, labels or order. Its datasets, one row
per image: `/layers/<tap>` (n, D), `/sha256` (n, 32) uint8, `/status` (n,) uint8, `/errors` (n,) text. They are
contiguous and uncompressed, so that rows can be mapped from the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from extract.errors import StoreError
from extract.spec import Failure, Status
from extract.store import files

NAME_DIGITS = 32
NOTHING = bytes(32)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one shard: per tap (n, D); digests (n, 32) uint8; a Failure, or None, per row."""

    layers: dict[str, np.ndarray]
    digests: np.ndarray
    failures: list[Failure | None]

    @property
    def bad(self) -> int:
        """How many rows hold a Failure."""
        return sum(failure is not None for failure in self.failures)


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard on disk: its file name, the SHA-256 of its body, and what it knows of its rows.

    `status` (n,) uint8; `errors` as bytes (n,), empty for rows that are fine.
    """

    name: str
    sha256: str
    digests: np.ndarray
    status: np.ndarray
    errors: np.ndarray


def write_shard(folder: Path, rows: Rows, key: str) -> str:
    """Write the rows of the recipe `key` as one file into `folder`, on disk for good when this returns: its name."""

    def fill(file: h5py.File) -> None:
        file.attrs["key"] = key
        for name, values in rows.layers.items():
            file.create_dataset(f"layers/{name}", data=values)
        file.create_dataset("sha256", data=rows.digests)
        file.create_dataset("status", data=np.array([f.status if f else Status.OK for f in rows.failures], np.uint8))
        file.create_dataset("errors", data=text_array([f.reason if f else "" for f in rows.failures]))

    digest, data = files.sealed("shard", files.hdf5_image(fill))
    name = f"{digest[:NAME_DIGITS]}.h5"
    files.publish(folder / name, data)
    return name


def read_shard(path: Path, key: str) -> Shard:
    """Read what a shard knows of its rows, after checking the whole file and that it is of the recipe `key`."""
    digest = files.verify(path, "shard")
    with open_hdf5(path) as file:
        if file.attrs.get("key") != key:
            raise StoreError("the shard is of another recipe", where=str(path), remedy="Run extract again")
        return Shard(path.name, digest, array(file, "sha256"), array(file, "status"), array(file, "errors"))


def shards_in(folder: Path) -> Iterator[Path]:
    """List the shards of a folder by name; temporary files of a killed run end otherwise."""
    return iter(sorted(folder.glob("*.h5")))


def open_hdf5(path: Path) -> h5py.File:
    """Open a file of ours for reading. It never changes, so HDF5 needs no lock, and fails on some disks if it tries."""
    return h5py.File(path, "r", locking=False)


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of that name; raises StoreError where there is none."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise StoreError(f"holds no dataset {name!r}", where=str(file.filename), remedy="Run extract again")
    return found


def array(file: h5py.File, name: str) -> np.ndarray:
    """Read a whole dataset of ours, which holds no more than its file: others can declare any size."""
    data = dataset(file, name)
    if data.chunks or data.is_virtual or data.external or data.nbytes > file.id.get_filesize():
        raise StoreError(f"{name!r} is stored in no way of ours", where=str(file.filename), remedy="Run extract again")
    return data[()]


def mapped(file: h5py.File, name: str) -> np.ndarray:
    """Map a contiguous dataset from the file, so that only the rows asked for are read."""
    data = dataset(file, name)
    if not data.size:
        return data[()]
    return np.memmap(file.filename, data.dtype, "r", data.id.get_offset(), data.shape)


def text_array(texts: list[str]) -> np.ndarray:
    """Text as UTF-8 of fixed length, which HDF5 keeps with the data; names that are no UTF-8 keep their bytes."""
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    length = max((len(text) for text in encoded), default=0)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, length)))


def texts_of(values: np.ndarray) -> list[str]:
    """Read what `text_array` wrote."""
    return [value.decode("utf-8", "surrogateescape") for value in values.tolist()]
