import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny_features import FakeFeatures, blobs


@dataclass
class StoredFeatures(FakeFeatures):
    """Also says where its images came from."""

    source: str = ""


@pytest.fixture
def make_set(tmp_path: Path) -> Callable[..., StoredFeatures]:
    """Write files by id as a folder of class folders, and stand in for their feature set, `X` being one layer."""

    def make(files: dict[str, bytes], X: np.ndarray | None = None, splits: list[str] | None = None) -> StoredFeatures:
        ids = sorted(files)
        folder = tmp_path / "images"
        for name in ids:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(files[name])
        names = sorted({name.split("/")[-2] for name in ids})
        labels = np.array([names.index(name.split("/")[-2]) for name in ids])
        layers = {"penultimate": blobs(labels, 8) if X is None else X}
        features = StoredFeatures(layers, labels, names, tmp_path / "weights", ids=ids, splits=splits or [])
        features.sha256 = np.array([list(hashlib.sha256(files[name]).digest()) for name in ids], np.uint8)
        features.source = str(folder)
        return features

    return make
