"""Feature sets made of numbers: what the store's reader gives, without a store."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from classify.probe.memo import digest
from extract.errors import StoreError
from extract.recipe import Preprocessing, Recipe, Tap
from tests.tiny import picture

PREPROCESSING = Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def tiny_recipe(layers: list[str]) -> Recipe:
    taps = tuple(Tap.parse(layer) for layer in layers)
    nodes = tuple(tap.layer for tap in taps)
    return Recipe("builtin:test", "0" * 64, taps, nodes, PREPROCESSING, "pillow", "fp32", "float32")


@dataclass
class FakeFeatures:
    X: dict[str, np.ndarray]
    labels: np.ndarray
    label_names: list[str]
    weights_path: Path
    name: str = "tiny/0123456789ab"
    splits: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.labels)
        self.splits, self.groups = self.splits or [""] * n, self.groups or [""] * n
        self.ids = self.ids or [f"{row:04d}.png" for row in range(n)]
        self.status, self.errors = np.zeros(n, dtype=np.uint8), [""] * n
        self.sha256 = np.random.default_rng(0).integers(0, 256, (n, 32), dtype=np.uint8)
        self.layers = list(self.X)
        self.recipe = tiny_recipe(self.layers)
        self.path = self.weights_path.with_name("features.h5")
        self.folder, self.source = self.path.parent, str(self.path.with_name("photos"))

    @property
    def digest(self) -> str:
        return digest([*self.X], [*self.X.values()])

    def check_weights(self) -> None:
        if not self.weights_path.is_file():
            raise StoreError("the weights are missing or damaged")

    def read(self, layer: str, rows: np.ndarray | None = None) -> np.ndarray:
        return self.X[layer] if rows is None else self.X[layer][rows]


def blobs(labels: np.ndarray, dims: int, seed: int = 0, distance: float = 3.0) -> np.ndarray:
    """Points about one centre for each label, all positive as after a ReLU: (n,) -> (n, dims) float32."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(int(labels.max()) + 1, dims)) * distance
    return np.maximum(centres[labels] + rng.normal(size=(len(labels), dims)), 0).astype(np.float32)


def noise(n: int, dims: int, seed: int = 0) -> np.ndarray:
    """Points that say nothing of any label: (n, dims) float32."""
    return np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)


def show(features: FakeFeatures, change: dict[int, tuple[int, Callable[[Image.Image], Image.Image]]]) -> FakeFeatures:
    """Write a picture for every row, where its source says; `change` makes some of another row's: row -> (row, how)."""
    folder = Path(features.source)
    folder.mkdir()
    for row, id_ in enumerate(features.ids):
        other, how = change.get(row, (row, lambda image: image))
        how(picture(other, (96, 72))).save(folder / id_)
        digest_ = hashlib.sha256((folder / id_).read_bytes()).digest()
        features.sha256[row] = np.frombuffer(digest_, np.uint8)
    return features
