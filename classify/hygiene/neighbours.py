"""The nearest other rows, exactly: cosine distances by blocks of a matrix product, never all n x n at once."""

from typing import TYPE_CHECKING, Any

import numpy as np

from classify.probe.backend import Backend, open_serial
from extract.errors import FitError

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

BLOCK_BYTES = 64 << 20
"""Memory for the similarities of one block of rows to all others."""

SELECTION, PRODUCTS_PER_S = 1000, 6e10
"""What one similarity costs when the nearest are picked, in multiplications; and how many of these a core does in a
second. Measured with numpy's argpartition and OpenBLAS: 18 ns, and 7e10."""


def unit_rows(features: "FeatureSet", layer: str, rows: np.ndarray) -> np.ndarray:
    """Read rows of one layer and scale each to length 1, rows of zeros apart: -> (n, D) float32, all finite."""
    return to_unit(features.read(layer, rows), f"{features.name}, layer {layer}")


def to_unit(X: np.ndarray, where: str = "features") -> np.ndarray:
    """Scale each row to length 1 in place: (n, D) float32 -> the same; raises FitError where it is not finite."""
    lengths = np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64))
    if not np.isfinite(lengths).all():
        raise FitError("rows hold what is no number", where=where, remedy="Verify the cache")
    X /= np.maximum(lengths, np.finfo(np.float32).tiny)[:, None].astype(np.float32)
    return X


def seconds_for(n: int, dims: int, n_others: int | None = None) -> float:
    """Estimate the seconds that `nearest` takes on a core, n rows of so many dims among the others, by default all n.

    What is searched goes by this on a GPU too: the answer must not depend on the machine.
    """
    return n * (n if n_others is None else n_others) * (dims + SELECTION) / PRODUCTS_PER_S


def nearest(unit: np.ndarray, k: int, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest other rows of each: (n, D) -> distances 1 - cos (n, k) float32 rising, and numbers (n, k).

    Exact up to rounding; k is cut to n - 1. Of equal distances the earlier row comes first among those that are kept.
    """
    n = len(unit)
    k = min(k, n - 1)
    distances, numbers = np.empty((n, max(k, 0)), np.float32), np.empty((n, max(k, 0)), np.int64)
    if k < 1:
        return distances, numbers
    step = max(1, BLOCK_BYTES // (4 * n))
    with open_serial(device) as backend:
        rows = backend.moved(unit)
        for start in range(0, n, step):
            block = slice(start, min(start + step, n))
            distances[block], numbers[block] = _nearest_of(rows, block, k, backend)
    return distances, numbers


def _nearest_of(rows: Any, block: slice, k: int, backend: Backend) -> tuple[np.ndarray, np.ndarray]:
    far = -rows[block] @ rows.T
    far += 1
    far[np.arange(len(far)), np.arange(block.start, block.stop)] = np.inf
    found, numbers = backend.smallest(far, k)
    order = np.lexsort((numbers, found), axis=1)
    return np.maximum(np.take_along_axis(found, order, axis=1), 0), np.take_along_axis(numbers, order, axis=1)
