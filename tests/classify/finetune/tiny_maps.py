"""Feature sets of maps in a store, without the network that would have made them."""

import hashlib
from pathlib import Path

import numpy as np

from extract.recipe import Recipe, Tap, view_of
from extract.record import Record
from extract.store.index import Entry, write_index
from extract.store.reader import FeatureSet
from extract.store.shards import Rows, read_shard, write_shard
from tests.classify.tiny_features import PREPROCESSING

LAYER = "layer1:map"
SHAPE = 3, 4, 5


def maps_of(n: int, views: int, store: str = "float16") -> np.ndarray:
    """The maps of n images in so many views, all of them different: (n, V, C, H, W)."""
    return np.random.default_rng(0).normal(size=(n, views, *SHAPE)).astype(store)


def content(i: int) -> bytes:
    """The SHA-256 of image i."""
    return hashlib.sha256(str(i).encode()).digest()


def map_set(
    folder: Path, n: int, *, views: int = 1, flips: bool = True, store: str = "float16", per_shard: int = 3
) -> FeatureSet:
    """Write the maps of n images, a few in each shard, and open them; image i is row i."""
    recipe = Recipe(
        "builtin:test", "0" * 64, (Tap("layer1", "map"),), ("layer1",), PREPROCESSING, "pillow", "fp32", store,
        views=views, view_flips=flips or views == 1,
    )  # fmt: skip
    place = folder / "tiny" / recipe.key[:12]
    (place / "shards").mkdir(parents=True)
    values, shards = maps_of(n, views, store), []
    for at in np.array_split(np.arange(n), -(-n // per_shard)):
        digests = np.array([np.frombuffer(content(i), np.uint8) for i in at])
        layers = {view_of(LAYER, view): values[at, view] for view in range(views)}
        name = write_shard(place / "shards", Rows(layers, digests, [None] * len(at)), recipe.key)
        shards.append(read_shard(place / "shards" / name, recipe.key))
    entries = [Entry(Record(f"{i}.png", ""), content(i)) for i in range(n)]
    write_index(place / "features.h5", recipe, entries, shards, {LAYER: SHAPE}, "nowhere")
    return FeatureSet(place / "features.h5")
