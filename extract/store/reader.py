"""Reading a feature set: found by name, checked, then any rows of any tap."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from extract.errors import OffshelfError, StoreError, unknown
from extract.spec import Recipe, weights_digest
from extract.store import files
from extract.store.index import FORMAT, FORMAT_VERSION, NO_SHARD
from extract.store.shards import array, dataset, mapped, open_hdf5, texts_of

INDEX = "features.h5"
SHARDS = "shards"
RECIPE = "recipe.json"
WEIGHTS = "weights.safetensors"
KEY_DIGITS = 12
AGAIN = "Run extract again"


class FeatureSet:
    """The rows that make up a data set now, one entry per image in every list: read whole, row subsets, tap by tap.

    `ids`, `splits`, `groups` and `errors` are lists of str ("" for none); `labels` (N,) int64 with -1 for none, into
    `label_names`; `status` (N,) uint8; `sha256` (N, 32) uint8. `dims` are the columns of each tap.
    """

    def __init__(self, path: Path) -> None:
        path = path.resolve()
        files.verify(path, "index")
        self.path, self.folder = path, path.parent
        with open_hdf5(path) as file:
            self.recipe = _recipe(file, path)
            self.source, self.created = _attribute(file, "source"), _attribute(file, "created")
            self.labels, self.status, self.sha256 = (array(file, name) for name in ("labels", "status", "sha256"))
            self.ids, self.label_names = _texts(file, "filenames"), _texts(file, "label_names")
            self.splits, self.groups, self.errors = (_texts(file, name) for name in ("splits", "groups", "errors"))
            self._shard, self._row = array(file, "rows/shard"), array(file, "rows/row")
            self.dims = {tap.name: int(dataset(file, f"layers/{tap.name}").shape[1]) for tap in self.recipe.taps}
            self._shards = list(zip(_texts(file, "shards/name"), _texts(file, "shards/sha256"), strict=True))
        self._verified: set[int] = set()

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
            raise StoreError("the weights are missing or damaged", where=str(self.weights_path), remedy=AGAIN)

    @cached_property
    def layers(self) -> list[str]:
        """The taps, from shallow to deep."""
        return [tap.name for tap in self.recipe.taps]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, layer: str, rows: np.ndarray | None = None) -> np.ndarray:
        """Read rows of one tap, all of them by default: row numbers (n,) -> (n, D) float32; bad rows are NaN.

        Raises StoreError where a shard is missing or was changed.
        """
        if layer not in self.layers:
            unknown("layer", layer, self.layers, StoreError)
        rows = np.arange(len(self)) if rows is None else np.asarray(rows)
        result = np.full((len(rows), self.dims[layer]), np.nan, np.float32)
        for number, values in self._parts(layer, rows):
            here = self._shard[rows] == number
            result[here] = values[self._row[rows[here]]]
        return result

    def _parts(self, layer: str, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number and the mapped array of every shard that holds some of the rows."""
        for number in np.unique(self._shard[rows]).tolist():
            if number != NO_SHARD:
                with open_hdf5(self._checked(number)) as file:
                    yield number, mapped(file, f"layers/{layer}")

    def _checked(self, number: int) -> Path:
        """Return the path of a shard whose bytes were proven whole, once per process and feature set."""
        name, digest = self._shards[number]
        path = self.folder / SHARDS / name
        if number not in self._verified:
            files.verify(path, "shard", digest)
            self._verified.add(number)
        return path


def weights_are_whole(path: Path, recipe: Recipe) -> bool:
    """Tell whether a file holds the very weights of a recipe."""
    try:
        return weights_digest(load_file(path)) == recipe.weights_sha256
    except (OSError, SafetensorError, KeyError, TypeError):
        return False


def _recipe(file: h5py.File, path: Path) -> Recipe:
    if file.attrs.get("format") != FORMAT or file.attrs.get("format_version") != FORMAT_VERSION:
        raise StoreError("an index of another format", where=str(path), remedy="Run extract again with this version")
    try:
        recipe = Recipe.from_json(_attribute(file, "recipe"))
    except (ValueError, TypeError, KeyError, OffshelfError) as error:
        raise StoreError("a recipe of another version", where=str(path), remedy=AGAIN) from error
    if recipe.key != _attribute(file, "key") or not recipe.key.startswith(path.parent.name):
        raise StoreError("the recipe and the key do not belong together", where=str(path), remedy=AGAIN)
    return recipe


def _attribute(file: h5py.File, name: str) -> str:
    value = file.attrs[name]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _texts(file: h5py.File, name: str) -> list[str]:
    return texts_of(array(file, name))


@dataclass(frozen=True, slots=True)
class Found:
    """One feature set in a cache: the data set's name, the key's first digits, the path of its index."""

    name: str
    key: str
    path: Path


def list_features(cache: Path) -> list[Found]:
    """List the feature sets of a cache, by name and key."""
    return [Found(p.parent.parent.name, p.parent.name, p) for p in sorted(cache.glob(f"*/*/{INDEX}"))]


def _choice(found: Found) -> str:
    try:
        recipe = FeatureSet(found.path).recipe
    except StoreError as error:
        return f"{found.name}/{found.key} ({error.what})"
    return f"{found.name}/{found.key} ({recipe.model}, {', '.join(tap.name for tap in recipe.taps)})"


def open_features(features: str, cache: Path) -> FeatureSet:
    """Open `NAME`, `NAME/KEYPREFIX` or the path of an index; raises StoreError where that is none, or not one."""
    path = Path(features)
    if path.is_file() or (path / INDEX).is_file():
        return FeatureSet(path if path.is_file() else path / INDEX)
    name, _, key = features.strip("/").partition("/")
    known = list_features(cache)
    found = [each for each in known if each.name == name and each.key.startswith(key)]
    if not found:
        names = [f"{each.name}/{each.key}" for each in known] if key else sorted({each.name for each in known})
        unknown(
            "features", features, names, StoreError, remedy=f"Looked in {cache}; make them with: pipeline.py extract."
        )
    if len(found) > 1:
        choices = "; ".join(map(_choice, found))
        raise StoreError(f"{features!r} is {len(found)} feature sets: {choices}", remedy="Say which, as NAME/KEY")
    return FeatureSet(found[0].path)
