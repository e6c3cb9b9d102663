"""Features that say nothing: the same number for every image, or as good as."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

BLOCK_BYTES = 32 << 20
NEARLY = 1e-3
"""Below this share of the median spread of its layer a feature is as good as constant."""


@dataclass(frozen=True)
class DeadFeatures:
    """Of one layer with `of` features: the numbers of constant ones (m,) with their value (m,), and of nearly such."""

    layer: str
    of: int
    constant: np.ndarray
    value: np.ndarray
    nearly: np.ndarray


def dead_features(features: "FeatureSet", layers: Sequence[str], rows: np.ndarray) -> list[DeadFeatures]:
    """Find in each layer what is constant, or nearly so, over these rows: read block by block, one pass."""
    return [_dead_of(features, layer, np.asarray(rows)) for layer in layers]


def _dead_of(features: "FeatureSet", layer: str, rows: np.ndarray) -> DeadFeatures:
    lowest, highest, spread = _spread(features, layer, rows)
    constant = np.flatnonzero(lowest == highest)
    alive = spread[lowest != highest]
    limit = NEARLY * float(np.median(alive)) if len(alive) else 0.0
    nearly = np.flatnonzero((lowest != highest) & (spread < limit))
    return DeadFeatures(layer, len(lowest), constant, lowest[constant], nearly)


def _spread(features: "FeatureSet", layer: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least, the greatest (D,) float32 and the standard deviation (D,) float64 of each feature.

    Blocks are joined as Chan, Golub and LeVeque 1983 do it, which loses nothing where a mean is large.
    """
    first = features.read(layer, rows[:1])[0]
    lowest, highest = first.copy(), first.copy()
    n, mean, squares = 0, np.zeros(first.shape), np.zeros(first.shape)
    step = max(1, BLOCK_BYTES // max(1, first.nbytes))
    for start in range(0, len(rows), step):
        X = features.read(layer, rows[start : start + step])
        np.minimum(lowest, X.min(axis=0), out=lowest)
        np.maximum(highest, X.max(axis=0), out=highest)
        here, m = X.mean(axis=0, dtype=np.float64), len(X)
        apart = here - mean
        squares += ((X - here) ** 2).sum(axis=0) + apart**2 * (n * m / (n + m))
        mean += apart * (m / (n + m))
        n += m
    return lowest, highest, np.sqrt(squares / n)
