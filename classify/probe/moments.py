"""Means, scales and Gram matrices of many sets of rows at once, in one pass over blocks.

All sums are in float64 and about a provisional mean, so that taking n mean^2 from a sum of squares does not cancel
where features lie far from 0 (Chan, Golub and LeVeque 1983).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from classify.probe.backend import HOST, Backend
from classify.probe.rows import Rows
from classify.probe.transforms import scale_of, transform_named


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
    All arrays are those of one device.
    """

    n: int
    shift: Any
    total: Any
    gram: Any
    cross: Any
    targets: Any

    @classmethod
    def none(cls, shift: Any, k: int, backend: Backend) -> Self:
        """Return the moments of no rows."""
        dims = len(shift)
        return cls(0, shift, *(backend.zeros(shape) for shape in ((dims,), (dims, dims), (dims, k), (k,))))

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

    def include(self, Z: Any, Y: Any) -> "Moments":
        """Count more rows, shifted, with their targets: (m, D), (m, k); adds to the arrays in place."""
        self.total[:] += Z.sum(axis=0)
        self.gram[:] += Z.T @ Z
        self.cross[:] += Z.T @ Y
        self.targets[:] += Y.sum(axis=0)
        return replace(self, n=self.n + len(Z))

    @property
    def mean(self) -> Any:
        """Mean of each feature: (D,)."""
        return self.shift + self.total / self.n

    @property
    def intercept(self) -> Any:
        """Mean of each target: (k,)."""
        return self.targets / self.n

    def centred_gram(self) -> Any:
        """Return the Gram matrix of the rows less their mean: (D, D), n times the covariance."""
        return self.gram - self.total[:, None] * (self.total / self.n)

    def centred_cross(self) -> Any:
        """Return the products of centred rows and centred targets: (D, k)."""
        return self.cross - self.total[:, None] * (self.targets / self.n)

    def std(self) -> Any:
        """Return the standard deviation of each feature over these rows: (D,), the population's as sklearn has it."""
        variance = (self.gram.diagonal() - self.total**2 / self.n) / self.n
        return variance.clip(0) ** 0.5


def provisional_mean(rows: Rows) -> np.ndarray:
    """Return the mean of the first block: (D,) float64. Any value near the mean serves as a shift."""
    return next((block.mean(axis=0, dtype=np.float64) for _, block in rows.blocks()), np.zeros(rows.shape[1]))


def part_moments(rows: Rows, Y: np.ndarray, parts: np.ndarray, n_parts: int, backend: Backend) -> list[Moments]:
    """Return the moments of each part in one pass: Y (n, k), parts (n,) codes, or -1 for rows to leave out.

    The targets may be of any type of numbers (int8 is enough for +-1).
    """
    shift = backend.array(provisional_mean(rows))
    found = [Moments.none(shift, Y.shape[1], backend) for _ in range(n_parts)]
    for at, block in rows.blocks():
        X = backend.moved(block)

        def include(part: int, at: slice = at, X: Any = X) -> None:
            mine = np.flatnonzero(parts[at] == part)
            found[part] = found[part].include(X[mine] - shift, backend.array(Y[at][mine]))

        list(backend.map(include, range(n_parts)))
    return found


def all_moments(rows: Rows, Y: np.ndarray, backend: Backend) -> Moments:
    """Return the moments of all rows, worked on side by side."""
    n_parts = backend.width
    return sum_of(part_moments(rows, Y, np.arange(rows.shape[0]) % n_parts, n_parts, backend))


def mean_std(rows: Rows, masks: np.ndarray, backend: Backend = HOST) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over M sets of rows in one pass: masks (M, n) bool -> (M, D) float64 each."""
    shift, shape = provisional_mean(rows), (len(masks), rows.shape[1])
    origin, total, squares = backend.array(shift), backend.zeros(shape), backend.zeros(shape)
    for at, block in rows.blocks():
        Z, chosen = backend.moved(block) - origin, backend.array(masks[:, at])
        total += chosen @ Z
        Z *= Z
        squares += chosen @ Z
    n = masks.sum(axis=1)[:, None]
    mean = backend.host(total) / n
    return shift + mean, np.sqrt(np.maximum(backend.host(squares) / n - mean**2, 0.0))


def scalers(rows: Rows, masks: np.ndarray, transform: str, backend: Backend = HOST) -> Scalers:
    """Fit mean and divisor on M sets of rows in one pass: masks (M, n) bool, each of a row or more -> (M, D) each.

    Only for transforms that treat features one by one: `pcaw` mixes them, and has a Whitener instead.
    """
    asked = transform_named(transform)
    if asked.whitened:
        raise ValueError("whitening is no scale of single features")
    mean, std = mean_std(rows, masks, backend)
    return Scalers(mean, scale_of(std) if asked.scaled else np.ones_like(std))


def sum_of(parts: Sequence[Moments]) -> Moments:
    """Add up moments of disjoint rows about one shift."""
    whole, *rest = parts
    for part in rest:
        whole = whole + part
    return whole
