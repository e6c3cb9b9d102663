"""The rows that a solver sees: features after the map of each row, in memory or streamed from the cache in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from classify.probe.transforms import transform_named
from classify.scoring import join
from extract.errors import FitError

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

BLOCK_BYTES = 32 << 20
"""Of one block: some thousand rows, enough for a matrix product to run at full speed."""


class Rows(Protocol):
    """Features of some rows after the map of each row: n rows of D numbers.

    `blocks` walks through all of them in order: where the rows of a block stand, and the block (m, D), float32 and
    C-contiguous (float64 where that was given). `take` returns the rows at some positions (m,) -> (m, D).
    """

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows, and how many numbers each."""
        ...

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Walk through all rows, a block at a time."""
        ...

    def take(self, at: np.ndarray) -> np.ndarray:
        """Return the rows at these positions: (m,) -> (m, D)."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows in memory: X (n, D); blocks are views of it."""

    X: np.ndarray
    block_bytes: int = BLOCK_BYTES

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows, and how many numbers each."""
        return self.X.shape[0], self.X.shape[1]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Walk through all rows, a block at a time."""
        for at in block_slices(self.shape, self.X.itemsize, self.block_bytes):
            yield at, self.X[at]

    def take(self, at: np.ndarray) -> np.ndarray:
        """Return a copy of the rows at these positions: (m,) -> (m, D)."""
        return self.X[at]


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows of a feature set, read when they are asked for: never more than one block of them is in memory.

    `rows` (n,) are row numbers of the feature set; ascending ones are read in about the order of the disk. The rows of
    several layers are laid side by side, each layer's scaled to length 1 first. A row with what is no number raises
    FitError.
    """

    features: "FeatureSet"
    layers: tuple[str, ...]
    transform: str
    rows: np.ndarray
    shape: tuple[int, int]
    block_bytes: int = BLOCK_BYTES

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Walk through all rows, a block at a time."""
        for at in block_slices(self.shape, np.dtype(np.float32).itemsize, self.block_bytes):
            yield at, self._read(self.rows[at])

    def take(self, at: np.ndarray) -> np.ndarray:
        """Read the rows at these positions: (m,) -> (m, D) float32."""
        return self._read(self.rows[at])

    def _read(self, rows: np.ndarray) -> np.ndarray:
        X = join([_finite(self.features, layer, rows) for layer in self.layers])
        return np.ascontiguousarray(transform_named(self.transform).rowwise(X), np.float32)


@dataclass(frozen=True, eq=False)
class SomeRows:
    """Some of other rows, at positions (m,), taken a block at a time."""

    rows: Rows
    at: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows, and how many numbers each."""
        return len(self.at), self.rows.shape[1]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Walk through all rows, a block at a time."""
        for here in block_slices(self.shape, np.dtype(np.float32).itemsize):
            yield here, self.rows.take(self.at[here])

    def take(self, at: np.ndarray) -> np.ndarray:
        """Return the rows at these positions: (m,) -> (m, D)."""
        return self.rows.take(self.at[at])


def subset(rows: Rows, at: np.ndarray) -> Rows:
    """Return the rows at some positions (m,), not yet taken."""
    return SomeRows(rows, at)


def array_rows(X: np.ndarray) -> Rows:
    """Take rows that are in memory, after their row-wise map: (n, D); float64 stays, all else becomes float32."""
    return ArrayRows(np.ascontiguousarray(X, np.float64 if X.dtype == np.float64 else np.float32))


def stored_rows(features: "FeatureSet", layers: tuple[str, ...], transform: str, rows: np.ndarray) -> Rows:
    """Stream rows (n,) of a feature set; raises FitError where a layer's rows are maps, or no numbers."""
    transform_named(transform)
    rows = np.asarray(rows, np.int64)
    dims = sum(_width(features, layer, rows[:1]) for layer in layers)
    return StoredRows(features, layers, transform, rows, (len(rows), dims))


def read_rows(
    features: "FeatureSet", layers: tuple[str, ...], transform: str, rows: np.ndarray, *, room_bytes: int
) -> Rows:
    """Read rows (n,) into memory where they take no more than `room_bytes`, and stream them else."""
    streamed = stored_rows(features, layers, transform, rows)
    if bytes_of(streamed.shape) > room_bytes:
        return streamed
    X = np.empty(streamed.shape, np.float32)
    for at, block in streamed.blocks():
        X[at] = block
    return ArrayRows(X)


def in_memory(rows: Rows) -> bool:
    """Tell whether rows cost nothing to visit once more."""
    return isinstance(rows, ArrayRows) or (isinstance(rows, SomeRows) and in_memory(rows.rows))


def bytes_of(shape: tuple[int, int]) -> int:
    """Bytes of so many rows of so many float32."""
    return shape[0] * shape[1] * np.dtype(np.float32).itemsize


def block_slices(shape: tuple[int, int], item_bytes: int, block_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Cut n rows into consecutive blocks of at most `block_bytes`, but at least a row."""
    n, dims = shape
    step = max(1, block_bytes // max(1, dims * item_bytes))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _width(features: "FeatureSet", layer: str, rows: np.ndarray) -> int:
    X = features.read(layer, rows)
    if X.ndim != 2:
        raise FitError(f"{layer!r} is a map, and a head takes rows", where=features.name, remedy="Extract it pooled")
    return X.shape[1]


def _finite(features: "FeatureSet", layer: str, rows: np.ndarray) -> np.ndarray:
    X = features.read(layer, rows)
    if not np.isfinite(X).all():
        raise FitError(f"rows of {layer!r} hold what is no number", where=features.name, remedy="Verify the cache")
    return X
