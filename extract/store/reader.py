"""Reading a feature set: checked, then any rows of any layer, mapped from the shards and proven when first read."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load_file

from extract.errors import StoreError, unknown
from extract.recipe import Recipe, weights_digest
from extract.store import index, shards
from extract.store.damages import REPAIR, damaged, unreadable
from extract.store.index import NO_SHARD
from extract.store.sealed import Part, Table, listed, open_sealed, prove_part
from extract.store.tables import Tables

INDEX = "features.h5"
SHARDS = "shards"
RECIPE = "recipe.json"
WEIGHTS = "weights.safetensors"
KEY_DIGITS = 12

GONE = "Open the features again, if they were extracted since; else run extract again: it is made anew"
FEW_ROWS = 1024
"""Up to here rows are copied one by one: grouped by shard they would be copied twice."""

MAX_MAPPED = 400
"""Arrays kept mapped at a time: each holds a file open, and systems allow a process 1,024 of them, or more."""


class FeatureSet(Tables):
    """The rows that make up a data set now: read whole, row subsets, layer by layer.

    It shows the data set as it was when it was opened, whatever is extracted later. As a context manager it lets go of
    its files at the end.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._mapped: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._proven: dict[tuple[str, int], Part] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a path, and be opened there again: the very same index, or an error."""
        return _reopen, (self.path, self.digest)

    def close(self) -> None:
        """Let go of the shards; a later read opens them again. Arrays that were read stay."""
        self._mapped.clear()

    @property
    def weights_path(self) -> Path:
        """The weights of the cut network that computed the features, as safetensors."""
        return self.folder / WEIGHTS

    def check_weights(self) -> None:
        """Raise StoreError where the weights beside the index are not those of the recipe."""
        if not weights_are_whole(self.weights_path, self.recipe):
            raise StoreError("the weights are missing or damaged", where=str(self.weights_path), remedy=REPAIR)

    def check(self) -> Self:
        """Check what costs next to nothing: every shard is there, of its size, and has the rows that the index names.

        Raises StoreError. That their bytes are right is proven when they are read.
        """
        for name, _, n_bytes, _ in self.shards:
            path = self.folder / SHARDS / name
            try:
                size = path.stat().st_size
            except FileNotFoundError as error:
                raise StoreError("the shard is missing", where=str(path), remedy=GONE) from error
            except OSError as error:
                raise unreadable(path, shards.KIND, error) from error
            if size != n_bytes:
                raise damaged(path, shards.KIND, f"it has {size:,} bytes, and not {n_bytes:,}")
        self._check_places()
        row_bytes = sum(map(math.prod, self.shapes.values())) * np.dtype(self.recipe.store).itemsize
        if any(rows * row_bytes > n_bytes for *_, n_bytes, rows in self.shards):
            raise damaged(self.path, index.KIND, "its rows are larger than its shards")
        return self

    def check_layers(self, number: int) -> None:
        """Check that the shard of this number holds rows of every layer, of their shape and type; raises StoreError."""
        path = self.folder / SHARDS / self.shards[number][0]
        file, table = open_sealed(path, shards.KIND)
        file.close()
        for layer in self.shapes:
            self._check_part(table, layer, number, path)

    def check_layer(self, layer: str) -> None:
        """Raise StoreError where there is no layer of that name, and say which there are."""
        if layer not in self.shapes:
            more = f"Further views of each end in @1 to @{self.views - 1}" if self.views > 1 else ""
            unknown("layer", layer, self.layers, StoreError, remedy=more)

    def load(self, layer: str | None = None, rows: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return X, y (n,) int64 with -1 for none, and ids, of some rows; of all good ones by default.

        X is float32 (n, D), or (n, C, H, W) of a map; the layer is by default the primary tap. `rows(...)` chooses rows
        by class and split.
        """
        rows = self.rows() if rows is None else row_numbers(rows, len(self))
        X = self.read(layer or self.recipe.primary.name, rows)
        return X, self.labels[rows], [self.ids[row] for row in rows.tolist()]

    def batches(
        self, layer: str, size: int, rows: ArrayLike | None = None, *, seed: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield X (n, D) or (n, C, H, W) float32 and y (n,) int64, n <= size, over the good rows or these.

        Shuffled by a seed.
        """
        rows = self.rows() if rows is None else row_numbers(rows, len(self))
        order = rows if seed is None else np.random.default_rng(seed).permutation(rows)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            yield self.read(layer, batch), self.labels[batch]

    def read(self, layer: str, rows: ArrayLike | None = None) -> np.ndarray:
        """Read rows of one layer, all of them by default: row numbers (n,) -> (n, D) or (n, C, H, W) float32.

        Bad rows are NaN. Takes memory for the rows asked for only. Raises StoreError where a shard is missing or was
        changed.
        """
        self.check_layer(layer)
        rows = np.arange(len(self)) if rows is None else row_numbers(rows, len(self))
        numbers, places = self._shard[rows], self._row[rows]
        result = np.empty((len(rows), *self.shapes[layer]), np.float32)
        if len(rows) <= FEW_ROWS:
            for i, (number, place) in enumerate(zip(numbers.tolist(), places.tolist(), strict=True)):
                result[i] = np.nan if number == NO_SHARD else self._array(layer, number)[place]
            return result
        for number, here in _by_shard(numbers):
            result[here] = np.nan if number == NO_SHARD else self._array(layer, number)[places[here]]
        return result

    def stored_row(self, layer: str, row: int) -> np.ndarray:
        """Return one row as it lies in its shard, read-only, of the stored type: (D,) or (C, H, W); a bad one is NaN.

        Its bytes are proven as those that `read` reads. Raises StoreError where a shard is missing or was changed.
        """
        number = int(self._shard[row])
        if number == NO_SHARD:
            return np.full(self.shapes[layer], np.nan, self.recipe.store)
        return self._array(layer, number)[self._row[row]]

    def _array(self, layer: str, number: int) -> np.ndarray:
        """Map one layer of one shard from its file (n, D) or (n, C, H, W); its bytes are proven the first time."""
        at = layer, number
        mapped = self._mapped.get(at)
        if mapped is None:
            while len(self._mapped) >= MAX_MAPPED:
                self._mapped.popitem(last=False)
            mapped = self._mapped[at] = self._map(layer, number)
        return mapped

    def _map(self, layer: str, number: int) -> np.ndarray:
        at, path = (layer, number), self.folder / SHARDS / self.shards[number][0]
        if at not in self._proven:
            self._proven[at] = self._prove(layer, number, path)
        part = self._proven[at]
        if part.n_bytes == 0:
            return np.empty(part.shape)
        try:
            return np.asarray(np.memmap(path, part.dtype, "r", part.offset, part.shape))
        except OSError as error:
            raise unreadable(path, shards.KIND, error) from error

    def _prove(self, layer: str, number: int, path: Path) -> Part:
        """Prove the rows of one layer in one shard, and that the shard is the one that the index means."""
        file, table = open_sealed(path, shards.KIND)
        with file:
            self._check_part(table, layer, number, path)
            return prove_part(file, path, shards.KIND, table, f"layers/{layer}")

    def _check_part(self, table: Table, layer: str, number: int, path: Path) -> None:
        """Check what a shard says of the rows of one layer, and that it is the shard that the index means."""
        _, digest, _, rows = self.shards[number]
        if table.sha256 != digest:
            raise damaged(path, shards.KIND, "its SHA-256 is not the one in the index")
        part = listed(path, shards.KIND, table, f"layers/{layer}")
        if part.shape != (rows, *self.shapes[layer]) or np.dtype(part.dtype) != np.dtype(self.recipe.store):
            raise damaged(path, shards.KIND, f"the dataset 'layers/{layer}' is of another shape or type")


def _by_shard(numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray | slice]]:
    """Group rows by their shard: yield each shard's number and where its rows stand among those asked for."""
    if len(numbers) and (numbers == numbers[0]).all():
        yield int(numbers[0]), slice(None)
        return
    order = np.argsort(numbers, kind="stable")
    sorted_numbers = numbers[order]
    starts = np.flatnonzero(np.diff(sorted_numbers, prepend=-2))
    yield from zip(sorted_numbers[starts].tolist(), np.split(order, starts[1:]), strict=True)


def _reopen(path: Path, digest: str) -> FeatureSet:
    features = FeatureSet(path)
    if features.digest != digest:
        raise StoreError("the index was replaced meanwhile", where=str(path), remedy="Open the features again")
    return features


def row_numbers(rows: ArrayLike, n: int) -> np.ndarray:
    """Take row numbers, or a mask over all n rows: -> int64."""
    values = np.asarray(rows)
    if values.dtype == bool and len(values) != n:
        raise IndexError(f"a mask of {len(values)} for {n} rows")
    return np.flatnonzero(values) if values.dtype == bool else values.astype(np.int64)


def weights_are_whole(path: Path, recipe: Recipe) -> bool:
    """Tell whether a file holds the very weights of a recipe; raises UnreadableError where the disk fails."""
    try:
        return weights_digest(load_file(path)) == recipe.weights_sha256
    except (FileNotFoundError, SafetensorError, KeyError, TypeError):
        return False
    except OSError as error:
        raise unreadable(path, "weights file", error) from error
