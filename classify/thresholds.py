"""The thresholds of a bundle and what they say of new rows, in plain numpy: nothing here is fitted.

`conformal` and `openset` find them, and say what they promise.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from classify.scoring import unit, unit_nearness

MAX_ROWS, MAX_BYTES = 20_000, 64 << 20
"""Of the reference rows in a bundle, as float16: they travel with it, and each prediction compares with all of them."""
BLOCK_ROWS = 256
RULES = ("accuracy", "coverage")
"""What an abstain threshold may have been chosen by."""


@dataclass(frozen=True)
class Conformal:
    """A class is in the set of a row where 1 - p is at most its threshold: `thresholds` (C,), found on `n` rows.

    A threshold of 1 lets every row in: too few rows were there to promise anything less.
    """

    alpha: float
    thresholds: tuple[float, ...]
    class_conditional: bool
    n: int

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Return which classes are in the set of each row: (n, C) -> (n, C) bool. A set may be empty: nothing fits."""
        return 1 - probabilities <= np.array(self.thresholds)

    def as_dict(self) -> dict[str, Any]:
        """Return what metrics.json keeps: `threshold` is the largest, `thresholds` those of the classes, or null."""
        own = list(self.thresholds) if self.class_conditional else None
        said = {"alpha": self.alpha, "threshold": max(self.thresholds), "thresholds": own}
        return {**said, "class_conditional": self.class_conditional, "n": self.n}


@dataclass(frozen=True)
class Abstain:
    """Answer where the probability is at least `threshold`: chosen `by` accuracy or coverage for what was `asked`.

    `coverage` is the share of rows that are answered, `accuracy_of_answered` how many of those are right.
    """

    threshold: float
    asked: float
    by: str
    coverage: float
    accuracy_of_answered: float

    def as_dict(self) -> dict[str, Any]:
        """Return what metrics.json and bundles keep."""
        return asdict(self)


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
        found = np.empty(len(X))
        for start in range(0, len(X), BLOCK_ROWS):
            at = slice(start, start + BLOCK_ROWS)
            squared = -2.0 * unit_nearness(self._reference, unit(X[at].astype(np.float32)))
            found[at] = np.partition(squared, self.k - 1, axis=1)[:, self.k - 1]
        return np.sqrt(np.maximum(found, 0))

    def novelty(self, X: np.ndarray) -> np.ndarray:
        """Return distances over the threshold: (n, D) -> (n,); above 1 is unlike anything seen."""
        return self.distances(X) / self.threshold

    def as_dict(self) -> dict[str, float]:
        """Return what metrics.json and bundles keep beside the rows."""
        said = {"k": self.k, "quantile": self.quantile, "threshold": self.threshold}
        return {**said, "n_reference": len(self.rows), "n_seen": self.n_seen}
