"""How a bundle scores: rows of its taps -> one row -> scores, each step a formula over arrays in plain numpy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

COSINE_TEMPERATURE = 0.07
"""Of DINOv2's votes."""
CENTRE_WIDTH = 0.01
"""Squared distances between unit rows differ by hundredths: over this, they are about as wide as logits."""
VOTE_FLOOR = 1e-6
"""A class without a vote is given this share, so that its score is finite."""
CHUNK_ROWS = 512
ABSENT = 10.0
"""How far below a row's lowest score a class lies that the training rows did not hold."""

Arrays = dict[str, np.ndarray]


def unit(X: np.ndarray) -> np.ndarray:
    """Scale each row to length 1, zero rows left as they are: (n, D) -> (n, D) of the same type."""
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(norms == 0, 1, norms)


def signed_root_unit(X: np.ndarray) -> np.ndarray:
    """Take sign(x) sqrt(|x|), then scale each row to length 1: (n, D) -> (n, D) of the same type.

    The power normalisation of Perronnin et al. 2010 at 1/2.
    """
    return unit(np.sign(X) * np.sqrt(np.abs(X)))


def unchanged(X: np.ndarray) -> np.ndarray:
    """Return the rows as they are: what is fitted of the transform is in the head's arrays."""
    return X


ROWWISE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": unchanged,
    "std": unchanged,
    "l2": unit,
    "pow": signed_root_unit,
    "pcaw": unchanged,
}
"""By transform, the part of it that needs no fitting: (n, D) -> (n, D)."""


def join(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Lay the rows of several taps side by side, each tap's scaled to length 1: m x (n, D_i) -> (n, sum of D_i).

    One tap alone stays as it is. Zero rows stay zero.
    """
    return blocks[0] if len(blocks) == 1 else np.concatenate([unit(block) for block in blocks], axis=1)


def prepared_width(arrays: Arrays) -> int:
    """Say how many columns `prepare` leaves."""
    return len(arrays["components"]) if "components" in arrays else len(arrays["mean"])


def _linear(arrays: Arrays, X: np.ndarray) -> np.ndarray:
    return prepare(arrays, X) @ arrays["coef"].T + arrays["intercept"]


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
    return unit_nearness(rows, unit(X))


def unit_nearness(rows: Any, Z: Any) -> Any:
    """Return the same for Z of unit rows, by operators that arrays of any device have: (m, D), (n, D) -> (n, m)."""
    return Z @ rows.T - ((Z**2).sum(axis=1, keepdims=True) + (rows**2).sum(axis=1)) / 2


def _votes(near: np.ndarray, arrays: Arrays) -> np.ndarray:
    """Let the k nearest vote, weighted exp(cosine / 0.07): (n, rows) -> log of the shares (n, C)."""
    k, codes = int(arrays["k"]), arrays["codes"]
    nearest = np.argpartition(-near, k - 1, axis=1)[:, :k]
    weights = np.exp(np.take_along_axis(near, nearest, axis=1) / COSINE_TEMPERATURE)
    votes = np.zeros((len(near), int(codes.max()) + 1))
    np.add.at(votes, (np.arange(len(near))[:, None], codes[nearest]), weights)
    return np.log(np.maximum(votes / votes.sum(axis=1, keepdims=True), VOTE_FLOOR))


def prepare(arrays: Arrays, X: np.ndarray) -> np.ndarray:
    """Apply what was fitted of a transform: standardise, then whiten where there are `components` (K, D)."""
    Z = (X - arrays["mean"]) / arrays["scale"]
    return Z @ arrays["components"].T if "components" in arrays else Z


def two_columns(decision: np.ndarray) -> np.ndarray:
    """Give each of two classes a column, half each way: their softmax is the sigmoid of the one: (n,) -> (n, 2).

    What has a column for each class stays as it is.
    """
    return np.stack([-decision / 2, decision / 2], axis=1) if decision.ndim == 1 else decision


def absent_last(scores: np.ndarray) -> np.ndarray:
    """Let classes with a score of -inf lose by ABSENT instead of endlessly: (n, C) -> (n, C) of the same type."""
    absent = np.isneginf(scores)
    if not absent.any():
        return scores
    return np.where(absent, np.where(absent, np.inf, scores).min(axis=1, keepdims=True) - ABSENT, scores)


def model_scores(model: Any, X: np.ndarray) -> np.ndarray:
    """Score by a fitted classifier of scikit-learn's kind: X (n, D) -> (n, C), columns as its `classes_`.

    The logarithms of its probabilities where it has any, else its decision function.
    """
    if hasattr(model, "predict_proba"):
        return np.log(np.maximum(model.predict_proba(X), VOTE_FLOOR))
    return two_columns(model.decision_function(X))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Turn scores into probabilities that add up to 1: (n, C) -> (n, C)."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Turn scores into a probability each, 1 / (1 + exp(-s)), without overflow at either end: same shape."""
    return np.exp(-np.logaddexp(0, -scores))


SCORERS: dict[str, Callable[[Arrays, np.ndarray], np.ndarray]] = {"linear": _linear, "knn": _knn, "centroid": _centroid}
SHAPES = {
    "linear": {"mean": ("D",), "scale": ("D",), "coef": ("C", "D"), "intercept": ("C",)},
    "knn": {"rows": ("N", "D"), "codes": ("N",), "k": ()},
    "centroid": {"centroids": ("C", "D")},
    "imported": {"mean": ("D",), "scale": ("D",), "proof_rows": ("P", "D"), "proof_scores": ("P", "C")},
}
"""By kind, the axes of each array. An imported head is no formula: its proof shows that it is the same when read."""
OPTIONAL_SHAPES = {"imported": {"components": ("K", "D")}}
