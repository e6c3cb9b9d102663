"""Small caches, whole in every file, whose rows are numbers that tell which image they are of."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from extract.recipe import Preprocessing, Recipe, Tap, weights_digest
from extract.record import Failure, Record, Status
from extract.store.folders import CACHE_TAG, GOLDEN, TAG, SetFolder
from extract.store.index import Entry, write_index
from extract.store.known import write_known
from extract.store.sealed import open_sealed, seal
from extract.store.shards import Rows, read_shard, write_shard

ARRAYS = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
PRESET = Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TAPS = Tap("a", "gem"), Tap("penultimate")
RECIPE = Recipe("builtin:x", weights_digest(ARRAYS), TAPS, ("a", "b"), PRESET, "pillow", "fp32", "float32")
HALF = replace(RECIPE, store="float16")
SHAPES = {"a:gem": (2,), "a:map": (2, 3, 1), "penultimate": (3,)}
SEEN = replace(RECIPE, taps=(Tap("a", "map"), Tap("penultimate")), views=3, view_seed=5)
"""A map and a row, seen in three views."""

WRITER = '{"python": "3", "device": "cpu"}'


def content(i: int) -> bytes:
    return bytes([i + 1]) * 32


def values_of(contents: Sequence[int], layer: str, *, bad: Sequence[int] = ()) -> np.ndarray:
    """Rows of one layer (n, *shape): the number of the content, the view and the place in the row; NaN where bad."""
    tap, _, view = layer.partition("@")
    shape = SHAPES[tap]
    numbers = np.array([np.nan if i in bad else i + 0.5 for i in contents]).reshape(-1, *(1 for _ in shape))
    return numbers + 16 * int(view or 0) + np.arange(np.prod(shape)).reshape(shape) / 32


def rows_of(contents: Sequence[int], recipe: Recipe = RECIPE, *, bad: Sequence[int] = ()) -> Rows:
    """Rows of every layer of a recipe, whose values tell which content they are of."""
    failures = [Failure(Status.DAMAGED, f"bad {i}") if i in bad else None for i in contents]
    digests = np.frombuffer(b"".join(map(content, contents)), np.uint8).reshape(-1, 32)
    layers = {layer: values_of(contents, layer, bad=bad).astype(recipe.store) for layer in recipe.layers}
    return Rows(layers, digests, failures)


def put_shard(folder: SetFolder, contents: Sequence[int], recipe: Recipe = RECIPE, *, bad: Sequence[int] = ()) -> Path:
    """Write one shard into a feature set's folder, whether or not an index names it."""
    rows = rows_of(contents, recipe, bad=bad)
    return folder.path / "shards" / write_shard(folder.path / "shards", rows, recipe.key, WRITER)


def put_set(
    cache: Path, shards: Sequence[Sequence[int]], recipe: Recipe = RECIPE, *, name: str = "set", bad: Sequence[int] = ()
) -> SetFolder:
    """Write a feature set with an image for every row of its shards, and all the files that go with it."""
    folder = SetFolder(cache / name / recipe.key[:12])
    paths = [put_shard(folder, contents, recipe, bad=bad) for contents in shards]
    entries = [entry(i) for contents in shards for i in contents]
    write_index(folder.index, recipe, entries, [read_shard(path, recipe.key) for path in paths], SHAPES, "/data")
    (cache / TAG).write_bytes(CACHE_TAG)
    (folder.path / "recipe.json").write_text(recipe.to_json() + "\n")
    (folder.path / "weights.safetensors").write_bytes(save(ARRAYS))
    (folder.path / GOLDEN).write_bytes(
        seal("golden", {}, lambda file: file.update({"rows": np.ones(3, np.float32)}))[1]
    )
    write_known(folder.path.parent / "contents.h5", {"0.png": ((1, 2, 3, 4, 5, 6), content(0))})
    return folder


def entry(i: int) -> Entry:
    record = Record(f"{i}.png", f"/data/{i}.png", ("cat", "dog", None)[i % 3], ("train", "test", None)[i % 3], f"g{i}")
    return Entry(record, content(i))


def flip(path: Path, dataset: str | None = None, kind: str = "shard") -> None:
    """Change one bit in the middle of a file, or of a dataset of a sealed one."""
    at = path.stat().st_size // 2
    if dataset:
        file, table = open_sealed(path, kind)
        file.close()
        at = table.parts[dataset].offset
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
