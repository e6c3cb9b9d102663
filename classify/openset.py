"""Images unlike anything seen: the distance to the k-th nearest training row, held against that of training rows."""

import math

import numpy as np

from classify.probe.backend import open_serial
from classify.scoring import unit, unit_nearness
from classify.thresholds import BLOCK_ROWS, MAX_BYTES, MAX_ROWS, OpenSet
from extract.errors import FitError

MAX_QUERIES = 2000
"""Reference rows whose distances give the threshold: of so many, the share of 5 % beyond it is known to 0.5 %."""
QUANTILE = 0.95
FEWEST_NEIGHBOURS = 10
SMALLEST = 1e-3
"""The lowest threshold, where training rows are equal: below it distances are rounding of float16 rows."""


def draw_reference(n: int, width: int, seed: int) -> np.ndarray:
    """Draw the training rows that a bundle keeps: of n rows of `width` columns -> row numbers, sorted."""
    most = min(n, MAX_ROWS, max(1, MAX_BYTES // (2 * width)))
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


def fit_open_set(
    X: np.ndarray, y: np.ndarray, groups: np.ndarray | None, *, n_seen: int, seed: int = 0, device: str = "cpu"
) -> OpenSet:
    """Find k and the threshold on reference rows X (N, D), y (N,) codes, groups (N,) codes or None.

    k is the root of the number of rows per class, 10 or more (Sun et al. 2022 take k by the size of the data), and
    never more than there are rows outside the largest group. `X` are the joined rows of the chosen taps. Raises
    FitError where all rows are of one group: then nothing says how far apart strangers are.
    """
    at = np.arange(len(X)) if groups is None else groups
    others = len(at) - int(np.unique(at, return_counts=True)[1].max())
    if not others:
        raise FitError(
            "all training images are of one group: no distance says what is unlike them",
            remedy="Give images of more groups",
        )
    per_class = len(y) / len(np.unique(y))
    k = min(max(FEWEST_NEIGHBOURS, round(math.sqrt(per_class))), others)
    rows = unit(X.astype(np.float32)).astype(np.float16)
    asked = np.random.default_rng(seed).permutation(len(X))[:MAX_QUERIES]
    distances = _kth(rows.astype(np.float32), X[asked], k, at[asked][:, None] == at, device)
    threshold = float(np.quantile(distances, QUANTILE, method="higher"))
    return OpenSet(rows, k, max(threshold, SMALLEST), QUANTILE, n_seen)


def _kth(rows: np.ndarray, X: np.ndarray, k: int, skipped: np.ndarray, device: str) -> np.ndarray:
    """Return distances to the k-th nearest of unit rows (N, D) float32: X (n, D) -> (n,).

    `skipped` (n, N) bool says what is left out for each: its own group, which is itself at least where it is one of
    them.
    """
    found = np.empty(len(X))
    with open_serial(device) as backend:
        reference = backend.moved(rows)
        for start in range(0, len(X), BLOCK_ROWS):
            at = slice(start, start + BLOCK_ROWS)
            squared = -2.0 * unit_nearness(reference, backend.moved(unit(X[at].astype(np.float32))))
            squared[backend.array(skipped[at], "bool")] = np.inf
            found[at] = backend.smallest(squared, k)[0].max(axis=1)
    return np.sqrt(np.maximum(found, 0))
