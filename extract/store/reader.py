"""Reading a feature set: checked, then any rows of any tap, mapped from the shards.

What an index says is proven byte by byte when it is opened, and every array of rows when it is first read.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load_file

from extract.errors import OffshelfError, StoreError, unknown
from extract.spec import Recipe, Status, weights_digest
from extract.store import index, shards
from extract.store.index import FORMAT, FORMAT_VERSION, NO_LABEL, NO_SHARD
from extract.store.sealed import REPAIR, Part, damaged, open_sealed, parse, prove_part, texts_of, unreadable

INDEX = "features.h5"
SHARDS = "shards"
RECIPE = "recipe.json"
WEIGHTS = "weights.safetensors"
KEY_DIGITS = 12
HEX = re.compile("[0-9a-f]{64}")
COLUMNS = ("labels", "status", "sha256", "filenames", "splits", "groups", "errors", "rows/shard", "rows/row")
"""Datasets of an index with an entry for every image."""

NUMBERS = ("labels", "rows/shard", "rows/row", "shards/bytes", "shards/rows")
TEXTS = ("filenames", "splits", "groups", "errors", "label_names", "shards/name", "shards/sha256")
KINDS = {
    **dict.fromkeys(NUMBERS, ("i", 1)),
    **dict.fromkeys(TEXTS, ("S", 1)),
    "status": ("u", 1),
    "sha256": ("u", 2),
}
"""The kind of numbers or text, and the rank, of every dataset of an index."""

GONE = "Open the features again, if they were extracted since; else run extract again: it is made anew"
MAX_INDEX_BYTES = 8 << 30
"""About 40 million images."""

FEW_ROWS = 1024
"""Up to here rows are copied one by one: grouped by shard they would be copied twice."""

MAX_MAPPED = 400
"""Arrays kept mapped at a time: each holds a file open, and systems allow a process 1,024 of them, or more."""


class FeatureSet:
    """The rows that make up a data set now, one entry per image in every list: read whole, row subsets, tap by tap.

    `ids`, `splits`, `groups` and `errors` are lists of str ("" for none); `labels` (N,) int64 with -1 for none, into
    `label_names`; `status` (N,) uint8; `sha256` (N, 32) uint8. `dims` are the columns of each tap.

    It shows the data set as it was when it was opened, whatever is extracted later. As a context manager it lets go of
    its files at the end.
    """

    def __init__(self, path: Path) -> None:
        path = path.resolve()
        self.path, self.folder = path, path.parent
        table, self._parts = parse(_bytes_of(path), path, index.KIND)
        self.digest, self.attributes = table.sha256, table.attributes
        self.recipe = _recipe(self.attributes, path)
        self.source, self.created = (str(self.attributes.get(name, "")) for name in ("source", "created"))
        self.dims = _dims(self.attributes, self.recipe, path)
        self.labels, self.status, self.sha256 = (self._column(name) for name in ("labels", "status", "sha256"))
        self._shard, self._row = self._column("rows/shard"), self._column("rows/row")
        self._mapped: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._proven: dict[tuple[str, int], Part] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a path, and be opened there again: the very same index, or an error."""
        return _reopen, (self.path, self.digest)

    def close(self) -> None:
        """Let go of the shards; a later read opens them again. Arrays that were read stay."""
        self._mapped.clear()

    @property
    def name(self) -> str:
        """`NAME/KEY12`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def weights_path(self) -> Path:
        """The weights of the cut network that computed the features, as safetensors."""
        return self.folder / WEIGHTS

    def check_weights(self) -> None:
        """Raise StoreError where the weights beside the index are not those of the recipe."""
        if not weights_are_whole(self.weights_path, self.recipe):
            raise StoreError("the weights are missing or damaged", where=str(self.weights_path), remedy=REPAIR)

    @cached_property
    def layers(self) -> list[str]:
        """The taps, from shallow to deep."""
        return [tap.name for tap in self.recipe.taps]

    @cached_property
    def ids(self) -> list[str]:
        """The relative POSIX path of every image."""
        return self._texts("filenames")

    @cached_property
    def label_names(self) -> list[str]:
        """The names of the labels, sorted."""
        return self._texts("label_names")

    @cached_property
    def splits(self) -> list[str]:
        """train, val, test or "" for every image."""
        return self._texts("splits")

    @cached_property
    def groups(self) -> list[str]:
        """The group of every image, or ""."""
        return self._texts("groups")

    @cached_property
    def errors(self) -> list[str]:
        """Why an image is bad; "" for the others."""
        return self._texts("errors")

    @cached_property
    def shards(self) -> list[tuple[str, str, int, int]]:
        """The shards that hold the rows: file name, SHA-256, bytes, rows."""
        names, digests = self._texts("shards/name"), self._texts("shards/sha256")
        sizes, rows = (self._column(f"shards/{name}").tolist() for name in ("bytes", "rows"))
        if names != [shards.name_of(digest) for digest in digests] or not all(map(HEX.fullmatch, digests)):
            raise damaged(self.path, index.KIND, "its shards are not named by their SHA-256")
        if not len(names) == len(sizes) == len(rows):
            raise damaged(self.path, index.KIND, "its table of shards has columns of several lengths")
        return list(zip(names, digests, sizes, rows, strict=True))

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the row of every image lies: number into `shards` (N,) int64, -1 for none, and row in it (N,) int64."""
        return self._shard, self._row

    def _column(self, name: str) -> np.ndarray:
        if name not in self._parts:
            raise damaged(self.path, index.KIND, f"it holds no dataset {name!r}")
        values = self._parts[name]
        if (values.dtype.kind, values.ndim) != KINDS[name]:
            raise damaged(self.path, index.KIND, f"its dataset {name!r} is of another kind")
        return values

    def _texts(self, name: str) -> list[str]:
        return texts_of(self._column(name))

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
        return self

    def _check_places(self) -> None:
        """Raise where a row lies in no shard, or beyond its end."""
        rows = np.array([*(rows for *_, rows in self.shards), 1 << 62], np.int64)
        n = len(self.shards)
        columns = [self._column(name) for name in COLUMNS]
        stored = self._shard != NO_SHARD
        if (
            len({len(column) for column in columns}) > 1
            or ((self.labels < NO_LABEL) | (self.labels >= len(self._column("label_names")))).any()
            or ((self._shard < NO_SHARD) | (self._shard >= n)).any()
            or ((self._row[stored] < 0) | (self._row[stored] >= rows[self._shard[stored]])).any()
            or (self.status[~stored] == Status.OK).any()
            or self.sha256.shape[1:] != (32,)
        ):
            raise damaged(self.path, index.KIND, "its rows and its shards do not belong together")

    def rows(
        self, *, classes: Collection[str] | None = None, split: str | None = None, bad: bool = False
    ) -> np.ndarray:
        """Choose rows: of these classes, of that split; good ones, unless `bad`: -> row numbers (n,) int64."""
        if split is not None and split not in self.splits:
            unknown("split", split, sorted(set(self.splits) - {""}), StoreError)
        chosen = np.ones(len(self), bool) if bad else self.status == Status.OK
        if classes is not None:
            for name in set(classes) - set(self.label_names):
                unknown("class", name, self.label_names, StoreError)
            chosen = chosen & np.isin(self.labels, [self.label_names.index(name) for name in set(classes)])
        if split is not None:
            chosen = chosen & (np.array(self.splits, dtype=object) == split)
        return np.flatnonzero(chosen)

    def load(self, layer: str | None = None, rows: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return X (n, D) float32, y (n,) int64 with -1 for none, and ids, of some rows; of all good ones by default.

        The layer is by default the primary tap. `rows(...)` chooses rows by class and split.
        """
        rows = self.rows() if rows is None else row_numbers(rows, len(self))
        X = self.read(layer or self.recipe.primary.name, rows)
        return X, self.labels[rows], [self.ids[row] for row in rows.tolist()]

    def batches(
        self, layer: str, size: int, rows: ArrayLike | None = None, *, seed: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield X (n, D) float32 and y (n,) int64, n <= size, over the good rows or these; shuffled by a seed."""
        rows = self.rows() if rows is None else row_numbers(rows, len(self))
        order = rows if seed is None else np.random.default_rng(seed).permutation(rows)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            yield self.read(layer, batch), self.labels[batch]

    def read(self, layer: str, rows: ArrayLike | None = None) -> np.ndarray:
        """Read rows of one tap, all of them by default: row numbers (n,) -> (n, D) float32; bad rows are NaN.

        Takes memory for the rows asked for only. Raises StoreError where a shard is missing or was changed.
        """
        if layer not in self.layers:
            unknown("layer", layer, self.layers, StoreError)
        rows = np.arange(len(self)) if rows is None else row_numbers(rows, len(self))
        numbers, places = self._shard[rows], self._row[rows]
        result = np.empty((len(rows), self.dims[layer]), np.float32)
        if len(rows) <= FEW_ROWS:
            for i, (number, place) in enumerate(zip(numbers.tolist(), places.tolist(), strict=True)):
                result[i] = np.nan if number == NO_SHARD else self._array(layer, number)[place]
            return result
        for number, here in _by_shard(numbers):
            result[here] = np.nan if number == NO_SHARD else self._array(layer, number)[places[here]]
        return result

    def _array(self, layer: str, number: int) -> np.ndarray:
        """Map one tap of one shard from its file (n, D); its bytes are proven the first time."""
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
        """Prove the rows of one tap in one shard, and that the shard is the one that the index means."""
        _, digest, _, rows = self.shards[number]
        dataset = f"layers/{layer}"
        file, table = open_sealed(path, shards.KIND)
        with file:
            if table.sha256 != digest:
                raise damaged(path, shards.KIND, "its SHA-256 is not the one in the index")
            part = prove_part(file, path, shards.KIND, table, dataset)
            if part.shape != (rows, self.dims[layer]) or np.dtype(part.dtype) != np.dtype(self.recipe.store):
                raise damaged(path, shards.KIND, f"the dataset {dataset!r} is of another shape or type")
            return part


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


def _bytes_of(path: Path) -> bytes:
    """Read an index in one go: what is in memory cannot be replaced while it is parsed."""
    file, table = open_sealed(path, index.KIND)
    with file:
        if table.n_bytes > MAX_INDEX_BYTES:
            raise damaged(path, index.KIND, f"{table.n_bytes:,} bytes are too many")
        try:
            file.seek(0)
            return file.read(table.n_bytes)
        except OSError as error:
            raise unreadable(path, index.KIND, error) from error


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


def _recipe(attributes: dict[str, Any], path: Path) -> Recipe:
    if attributes.get("format") != FORMAT or attributes.get("format_version") != FORMAT_VERSION:
        raise StoreError("an index of another format", where=str(path), remedy="Run extract again with this version")
    try:
        recipe = Recipe.from_json(attributes["recipe"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OffshelfError) as error:
        raise StoreError("a recipe of another version", where=str(path), remedy="Run extract again") from error
    if recipe.key != attributes.get("key") or not recipe.key.startswith(path.parent.name):
        raise StoreError("the recipe and the key do not belong together", where=str(path), remedy="Run extract again")
    return recipe


def _dims(attributes: dict[str, Any], recipe: Recipe, path: Path) -> dict[str, int]:
    """Read the columns of each tap."""
    try:
        dims = {str(name): int(width) for name, width in json.loads(attributes["dims"]).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(path, index.KIND, "it does not say how wide the taps are") from error
    if dims.keys() != {tap.name for tap in recipe.taps} or min(dims.values(), default=0) < 0:
        raise damaged(path, index.KIND, "its taps are not those of the recipe")
    return dims
