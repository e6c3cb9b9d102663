"""Images unlike anything seen: the distance to the k-th nearest training row, held against that of training rows."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from classify.probe.backend import open_serial
from classify.scoring import unit, unit_nearness
from extract.errors import FitError

MAX_ROWS, MAX_BYTES = 20_000, 64 << 20
"""Of the reference rows in a bundle, as float16: they travel with it, and each prediction compares with all of them."""
MAX_QUERIES = 2000
"""Reference rows whose distances give the threshold: of so many, the share of 5 % beyond it is known to 0.5 %."""
QUANTILE = 0.95
FEWEST_NEIGHBOURS = 10
BLOCK_ROWS = 256
SMALLEST = 1e-3
"""The lowest threshold, where training rows are equal: below it distances are rounding of float16 rows."""


@dataclass(frozen=True)
class OpenSet:
    """Reference `rows` (N, D) float16 of length 1, drawn from `n_seen` training rows.

    A row whose `k`-th nearest of them is farther than `threshold` is unlike anything seen; so were 1 - `quantile` of
    the training rows, each held against the rows outside its own group.
    """

    rows: np.ndarray
    k: int
    threshold: float
    quantile: float
    n_seen: int

    @cached_property
    def _reference(self) -> np.ndarray:
        return self.rows.astype(np.float32)

    def distances(self, X: np.ndarray) -> np.ndarray:
        """Return the distance of each row, scaled to length 1, to its k-th nearest: (n, D) -> (n,) float64, 0..2."""
        return _kth(self._reference, X, self.k, None, "cpu")

    def novelty(self, X: np.ndarray) -> np.ndarray:
        """Return distances over the threshold: (n, D) -> (n,); above 1 is unlike anything seen."""
        return self.distances(X) / self.threshold

    def as_dict(self) -> dict[str, float]:
        """Return what metrics.json and bundles keep beside the rows."""
        said = {"k": self.k, "quantile": self.quantile, "threshold": self.threshold}
        return {**said, "n_reference": len(self.rows), "n_seen": self.n_seen}


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
        raise FitError("all training images are of one group: no distance says what is unlike them")
    per_class = len(y) / len(np.unique(y))
    k = min(max(FEWEST_NEIGHBOURS, round(math.sqrt(per_class))), others)
    rows = unit(X.astype(np.float32)).astype(np.float16)
    asked = np.random.default_rng(seed).permutation(len(X))[:MAX_QUERIES]
    distances = _kth(rows.astype(np.float32), X[asked], k, at[asked][:, None] == at, device)
    threshold = float(np.quantile(distances, QUANTILE, method="higher"))
    return OpenSet(rows, k, max(threshold, SMALLEST), QUANTILE, n_seen)


def _kth(rows: np.ndarray, X: np.ndarray, k: int, skipped: np.ndarray | None, device: str) -> np.ndarray:
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
            if skipped is not None:
                squared[backend.array(skipped[at], "bool")] = np.inf
            found[at] = backend.smallest(squared, k)[0].max(axis=1)
    return np.sqrt(np.maximum(found, 0))
