from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_features import FakeFeatures, blobs


@pytest.fixture
def make_features(tmp_path: Path) -> Callable[..., FakeFeatures]:
    def make(labels: np.ndarray, names: list[str], **known) -> FakeFeatures:
        weights = tmp_path / "weights.safetensors"
        weights.write_bytes(b"stands for weights")
        if "X" not in known:
            known["X"] = {"penultimate": blobs(labels, 8)}
        return FakeFeatures(labels=labels, label_names=names, weights_path=weights, **known)

    return make
