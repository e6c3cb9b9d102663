"""How a bundle scores: each kind of head as a formula over arrays, in plain numpy, without sklearn."""

from collections.abc import Callable

import numpy as np

COSINE_TEMPERATURE = 0.07
"""Of DINOv2's votes."""
CENTRE_WIDTH = 0.01
"""Squared distances between unit rows differ by hundredths: over this, they are about as wide as logits."""
VOTE_FLOOR = 1e-6
"""A class without a vote is given this share, so that its score is finite."""
CHUNK_ROWS = 512

Arrays = dict[str, np.ndarray]


def unit(X: np.ndarray) -> np.ndarray:
    """Scale each row to length 1, zero rows left as they are: (n, D) -> (n, D)."""
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(norms == 0, 1, norms)


def _linear(arrays: Arrays, X: np.ndarray) -> np.ndarray:
    return ((X - arrays["mean"]) / arrays["scale"]) @ arrays["coef"].T + arrays["intercept"]


def _centroid(arrays: Arrays, X: np.ndarray) -> np.ndarray:
    """Score by the squared distance to each centre of unit rows: (n, D) -> (n, C)."""
    Z, centres = unit(X), arrays["centroids"]
    squared = (Z**2).sum(axis=1, keepdims=True) - 2 * Z @ centres.T + (centres**2).sum(axis=1)
    return -squared / CENTRE_WIDTH


def _knn(arrays: Arrays, X: np.ndarray) -> np.ndarray:
    rows = unit(arrays["rows"].astype(np.float64))
    parts = [_votes(nearness(rows, X[at : at + CHUNK_ROWS]), arrays) for at in range(0, len(X), CHUNK_ROWS)]
    return np.concatenate(parts) if parts else np.empty((0, int(arrays["codes"].max()) + 1))


def nearness(rows: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return -d^2 / 2 to unit rows, which is cosine - 1 unless one is all 0: (m, D), X (n, D) -> (n, m)."""
    Z = unit(X)
    return Z @ rows.T - ((Z**2).sum(axis=1, keepdims=True) + (rows**2).sum(axis=1)) / 2


def _votes(near: np.ndarray, arrays: Arrays) -> np.ndarray:
    """Let the k nearest vote, weighted exp(cosine / 0.07): (n, rows) -> log of the shares (n, C)."""
    k, codes = int(arrays["k"]), arrays["codes"]
    nearest = np.argpartition(-near, k - 1, axis=1)[:, :k]
    weights = np.exp(np.take_along_axis(near, nearest, axis=1) / COSINE_TEMPERATURE)
    votes = np.zeros((len(near), int(codes.max()) + 1))
    np.add.at(votes, (np.arange(len(near))[:, None], codes[nearest]), weights)
    return np.log(np.maximum(votes / votes.sum(axis=1, keepdims=True), VOTE_FLOOR))


SCORERS: dict[str, Callable[[Arrays, np.ndarray], np.ndarray]] = {"linear": _linear, "knn": _knn, "centroid": _centroid}
SHAPES = {
    "linear": {"mean": ("D",), "scale": ("D",), "coef": ("C", "D"), "intercept": ("C",)},
    "knn": {"rows": ("N", "D"), "codes": ("N",), "k": ()},
    "centroid": {"centroids": ("C", "D")},
}
