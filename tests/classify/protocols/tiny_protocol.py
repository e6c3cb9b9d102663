"""Small data for protocols: blobs that overlap, so that settings differ in what they score."""

import numpy as np
from tiny_features import blobs

from classify.protocols import ProtocolData


def tiny_data(n_train: int = 90, n_test: int = 60, n_classes: int = 3, dims: int = 8, **known) -> ProtocolData:
    y = np.random.default_rng(1).permutation(np.arange(n_train + n_test) % n_classes)
    X = blobs(y, dims, distance=0.5)
    classes = [f"class {code}" for code in range(n_classes)]
    return ProtocolData(X[:n_train], y[:n_train], X[n_train:], y[n_train:], classes, **known)
