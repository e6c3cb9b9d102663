"""Means, scales and Gram matrices of many sets of rows at once, in one pass over blocks.

All sums are in float64 and about a provisional mean, so that taking n mean^2 from a sum of squares does not cancel
where features lie far from 0 (Chan, Golub and LeVeque 1983).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from classify.probe.backend import numpy_backend
from classify.probe.rows import Rows
from classify.probe.transforms import scale_of, transform_named
from extract.spec import available_cores


@dataclass(frozen=True, eq=False)
class Scalers:
    """Mean and divisor of each feature over each of M sets of rows: (M, D) float64.

    A divisor of inf drops the feature: it becomes 0. Transforms that do not standardise have divisors of 1.
    """

    mean: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True, eq=False)
class Moments:
    """What ridge regression needs to know of n rows X (n, D) and their targets Y (n, k), in float64.

    About `shift` (D,), with Z = X - shift: `total` (D,) = sum of Z, `gram` (D, D) = Z'Z, `cross` (D, k) = Z'Y;
    `targets` (k,) = sum of Y. Moments of disjoint sets of rows about one shift add up, and can be taken away again.
    """

    n: int
    shift: np.ndarray
    total: np.ndarray
    gram: np.ndarray
    cross: np.ndarray
    targets: np.ndarray

    @classmethod
    def none(cls, shift: np.ndarray, k: int) -> Self:
        """Return the moments of no rows."""
        dims = len(shift)
        return cls(0, shift, np.zeros(dims), np.zeros((dims, dims)), np.zeros((dims, k)), np.zeros(k))

    def __add__(self, other: "Moments") -> "Moments":
        return self._joined(other, 1)

    def __sub__(self, other: "Moments") -> "Moments":
        return self._joined(other, -1)

    def _joined(self, other: "Moments", sign: int) -> "Moments":
        if self.shift is not other.shift:
            raise ValueError("moments about different shifts do not add up")
        return Moments(
            self.n + sign * other.n,
            self.shift,
            self.total + sign * other.total,
            self.gram + sign * other.gram,
            self.cross + sign * other.cross,
            self.targets + sign * other.targets,
        )

    def include(self, Z: np.ndarray, Y: np.ndarray) -> "Moments":
        """Count more rows, shifted, with their targets: (m, D), (m, k); adds to the arrays in place."""
        self.total[:] += Z.sum(axis=0)
        self.gram[:] += Z.T @ Z
        self.cross[:] += Z.T @ Y
        self.targets[:] += Y.sum(axis=0)
        return replace(self, n=self.n + len(Z))

    @property
    def mean(self) -> np.ndarray:
        """Mean of each feature: (D,)."""
        return self.shift + self.total / self.n

    @property
    def intercept(self) -> np.ndarray:
        """Mean of each target: (k,)."""
        return self.targets / self.n

    def centred_gram(self) -> np.ndarray:
        """Return the Gram matrix of the rows less their mean: (D, D), n times the covariance."""
        return self.gram - np.outer(self.total, self.total / self.n)

    def centred_cross(self) -> np.ndarray:
        """Return the products of centred rows and centred targets: (D, k)."""
        return self.cross - np.outer(self.total, self.targets / self.n)

    def std(self) -> np.ndarray:
        """Return the standard deviation of each feature over these rows: (D,), the population's as sklearn has it."""
        variance = (np.einsum("ii->i", self.gram) - self.total**2 / self.n) / self.n
        return np.sqrt(np.maximum(variance, 0.0))


def provisional_mean(rows: Rows) -> np.ndarray:
    """Return the mean of the first block: (D,) float64. Any value near the mean serves as a shift."""
    return next((block.mean(axis=0, dtype=np.float64) for _, block in rows.blocks()), np.zeros(rows.shape[1]))


def part_moments(rows: Rows, Y: np.ndarray, parts: np.ndarray, n_parts: int) -> list[Moments]:
    """Return the moments of each part in one pass: Y (n, k), parts (n,) codes, or -1 for rows to leave out.

    The targets may be of any type of numbers (int8 is enough for +-1).
    """
    shift = provisional_mean(rows)
    found = [Moments.none(shift, Y.shape[1]) for _ in range(n_parts)]
    with numpy_backend() as cores:
        for at, block in rows.blocks():

            def include(part: int, at: slice = at, block: np.ndarray = block) -> None:
                mine = np.flatnonzero(parts[at] == part)
                found[part] = found[part].include(block[mine] - shift, Y[at][mine].astype(np.float64))

            list(cores.map(include, range(n_parts)))
    return found


def all_moments(rows: Rows, Y: np.ndarray) -> Moments:
    """Return the moments of all rows, worked on side by side."""
    n_parts = available_cores()
    return sum_of(part_moments(rows, Y, np.arange(rows.shape[0]) % n_parts, n_parts))


def mean_std(rows: Rows, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over M sets of rows in one pass: masks (M, n) bool -> (M, D) float64 each."""
    shift, dims = provisional_mean(rows), rows.shape[1]
    total, squares = np.zeros((len(masks), dims)), np.zeros((len(masks), dims))
    for at, block in rows.blocks():
        Z, chosen = block - shift, masks[:, at].astype(np.float64)
        total += chosen @ Z
        squares += chosen @ np.square(Z, out=Z)
    n = masks.sum(axis=1)[:, None]
    mean = total / n
    return shift + mean, np.sqrt(np.maximum(squares / n - mean**2, 0.0))


def scalers(rows: Rows, masks: np.ndarray, transform: str) -> Scalers:
    """Fit mean and divisor on M sets of rows in one pass: masks (M, n) bool, each of a row or more -> (M, D) each.

    Only for transforms that treat features one by one: `pcaw` mixes them, and has a Whitener instead.
    """
    asked = transform_named(transform)
    if asked.whitened:
        raise ValueError("whitening is no scale of single features")
    mean, std = mean_std(rows, masks)
    return Scalers(mean, scale_of(std) if asked.scaled else np.ones_like(std))


def sum_of(parts: Sequence[Moments]) -> Moments:
    """Add up moments of disjoint rows about one shift."""
    whole, *rest = parts
    for part in rest:
        whole = whole + part
    return whole
