"""What an index says of the images of a data set: read whole, and proven byte by byte, when it is opened."""

import re
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from extract.errors import StoreError, unknown
from extract.recipe import Recipe
from extract.record import Status
from extract.store import index, shards
from extract.store.damages import damaged, unreadable
from extract.store.index import FORMAT, FORMAT_VERSION, NO_LABEL, NO_SHARD, by_layer, read_shapes
from extract.store.sealed import open_sealed, parse
from extract.store.texts import texts_of

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


class Tables:
    """The tables of an index, one entry per image in every list.

    `ids`, `splits`, `groups` and `errors` are lists of str ("" for none); `labels` (N,) int64 with -1 for none, into
    `label_names`; `status` (N,) uint8; `sha256` (N, 32) uint8. `shapes` says of every layer what one row looks like,
    (D,) or (C, H, W) of a map: of every tap, and of `<tap>@1` and so on where there are further views.
    """

    def __init__(self, path: Path) -> None:
        path = path.resolve()
        self.path, self.folder = path, path.parent
        table, self._parts = parse(_bytes_of(path), path, index.KIND)
        self.digest, self.attributes = table.sha256, table.attributes
        self.recipe = _recipe(self.attributes, path)
        self.source, self.created = (str(self.attributes.get(name, "")) for name in ("source", "created"))
        self.shapes = by_layer(self.recipe, read_shapes(self.attributes, self.recipe, path))
        self.labels, self.status, self.sha256 = (self._column(name) for name in ("labels", "status", "sha256"))
        self._shard, self._row = self._column("rows/shard"), self._column("rows/row")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def name(self) -> str:
        """`NAME/KEY12`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @cached_property
    def layers(self) -> list[str]:
        """The taps, from shallow to deep; `shapes` names further views of them, too."""
        return [tap.name for tap in self.recipe.taps]

    @property
    def views(self) -> int:
        """Looks at every image: 1 for the centre alone."""
        return self.recipe.views

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


def _bytes_of(path: Path) -> bytes:
    """Read an index in one go: what is in memory cannot be replaced while it is parsed."""
    file, table = open_sealed(path, index.KIND)
    with file:
        if table.n_bytes > index.MAX_BYTES:
            raise damaged(path, index.KIND, f"{table.n_bytes:,} bytes are too many")
        try:
            file.seek(0)
            return file.read(table.n_bytes)
        except OSError as error:
            raise unreadable(path, index.KIND, error) from error


def _recipe(attributes: dict[str, Any], path: Path) -> Recipe:
    if attributes.get("format") != FORMAT or attributes.get("format_version") != FORMAT_VERSION:
        raise StoreError("an index of another format", where=str(path), remedy="Run extract again with this version")
    try:
        recipe = Recipe.from_json(attributes["recipe"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError("a recipe of another version", where=str(path), remedy="Run extract again") from error
    if recipe.key != attributes.get("key") or not recipe.key.startswith(path.parent.name):
        raise StoreError("the recipe and the key do not belong together", where=str(path), remedy="Run extract again")
    return recipe
