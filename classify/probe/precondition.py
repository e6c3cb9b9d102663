"""Coordinates in which all problems curve about alike, so that L-BFGS needs tens of passes over the rows, not hundreds.

The Hessian of multinomial logistic regression is at most 1/2 (I - 11'/k) (x) Z'Z (Boehning 1992), and at weights of 0
it is that with 1/k for balanced classes; for one class against the rest it is 1/4 Z'Z there. So with M = a Z'Z/n + r I,
r the ridge of the mean loss and L its Cholesky factor, W = U inv(L) makes the Hessian in U nearly the identity there,
however correlated the features are. One second-moment matrix serves all masks, and one factor all problems of about the
same r: M only chooses how the optimum is approached. It does not move it, so the rows it is taken from leak nothing.

Along the way rows that are fitted lose their curvature, and M overrates what is left in directions of small variance.
So r is FLOOR times the mean curvature at least. 4,000 x 512 x 10 to 1e-6, for C = 0.01, 0.1, 1 and 100: 35, 74, 116, 95
steps without a floor, about 31, 53, 80, 60 with one, and 73, 144, 207, 123 with a diagonal M.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import get_lapack_funcs, solve_triangular

from classify.probe.backend import Backend
from classify.probe.moments import Scalers
from classify.probe.rows import Rows

FLOOR = 2.0
"""Of the ridge in M, in units of the mean diagonal of a Z'Z/n: 1 to 3 did about as well."""
ROWS_PER_DIM = 4
"""Rows that the moments are estimated from, for each feature: more did not save evaluations."""
STEPS_PER_OCTAVE = 2
"""Ridges within a factor of 2^(1/2) share a Cholesky factor."""
COLUMNS = 256
"""Of a triangle, multiplied at a time."""
PASSES, PASSES_SAVED = 30, 40
"""Passes over the rows with a full factor, and how many fewer they are than with a diagonal one: for C = 1 and 3,600
features of 4,000 rows 45 instead of 120."""
SLOW = 2
"""By how much an operation of moments and factors takes longer than one of a pass."""


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The map between weights W (P, k, D) and coordinates of the same shape, for problems sorted by ridge.

    `factors` holds one inverse Cholesky factor (D, D), or one multiplier per feature (D,), for each distinct ridge,
    float32 on the host: rounding them chooses other coordinates, no other problem. `factor_of` (P,), ascending, says
    which is whose.
    """

    factors: tuple[np.ndarray, ...]
    factor_of: np.ndarray
    curvature: float

    def of_weights(self, W: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Return the coordinates of weights of problems (A,): (A, k, D) -> (A, k, D), both on the host."""
        U = np.empty_like(W)
        for at, factor in self.runs(which, self.factors):
            flat = W[at].reshape(-1, W.shape[-1])
            U[at] = (flat / factor if factor.ndim == 1 else _solve(factor, flat)).reshape(U[at].shape)
        return U

    def on(self, backend: Backend, dtype: str) -> "Applied":
        """Bring the factors to the device, as one type."""
        return Applied(self, backend, tuple(backend.array(factor, dtype) for factor in self.factors))

    def runs(self, which: np.ndarray, factors: tuple[Any, ...]) -> list[tuple[slice, Any]]:
        """Return which of the problems (A,), ascending, share a factor: slices of them, with it."""
        mine = self.factor_of[which]
        starts = np.flatnonzero(np.diff(mine, prepend=-1))
        ends = [*starts[1:], len(which)]
        return [(slice(int(a), int(b)), factors[mine[a]]) for a, b in zip(starts, ends, strict=True)]


@dataclass(frozen=True, eq=False)
class Applied:
    """Coordinates on a device, in one type."""

    coordinates: Coordinates
    backend: Backend
    factors: tuple[Any, ...]

    def weights(self, U: Any, which: np.ndarray) -> Any:
        """Return the weights at coordinates of problems (A,): (A, k, D) -> (A, k, D)."""
        return self._times(U, which, transposed=False)

    def gradient(self, G: Any, which: np.ndarray) -> Any:
        """Return the gradient by the coordinates, from that by the weights: (A, k, D) -> (A, k, D)."""
        return self._times(G, which, transposed=True)

    def _times(self, V: Any, which: np.ndarray, *, transposed: bool) -> Any:
        parts = []
        for at, factor in self.coordinates.runs(which, self.factors):
            flat = V[at].reshape(-1, V.shape[-1])
            product = flat * factor if factor.ndim == 1 else self._triangular(flat, factor, transposed)
            parts.append(product.reshape(V[at].shape))
        return parts[0] if len(parts) == 1 else self.backend.xp.concatenate(parts)

    def _triangular(self, flat: Any, factor: Any, transposed: bool) -> Any:
        """Multiply rows (m, D) by a lower triangle (D, D), or by its transpose, leaving out most of the zeros."""
        product = self.backend.zeros(tuple(flat.shape), str(flat.dtype).rpartition(".")[2])

        def fill(at: slice) -> None:
            product[:, at] = (
                flat[:, : at.stop] @ factor[at, : at.stop].T
                if transposed
                else flat[:, at.start :] @ factor[at.start :, at]
            )

        list(self.backend.map(fill, [slice(start, start + COLUMNS) for start in range(0, flat.shape[1], COLUMNS)]))
        return product


def ridge_keys(ridges: np.ndarray) -> np.ndarray:
    """Number ridges (P,) so that those of one number are about the same."""
    return np.round(STEPS_PER_OCTAVE * np.log2(ridges)).astype(np.int64)


@dataclass(eq=False)
class Factors:
    """Factors for problems on these rows under these scalers, each made once: calls that follow find them here.

    `curvature` is that of the loss beside Z'Z, see above. `moments` (D, D) float32 are there once a full factor has
    paid; `made` has the last call's factors by the keys of their ridges.
    """

    rows: Rows
    scalers: Scalers
    curvature: float
    moments: np.ndarray | None = None
    made: dict[int, np.ndarray] = field(default_factory=dict)

    @cached_property
    def spread(self) -> np.ndarray:
        """The diagonal of the moments: (D,) float64."""
        return self.curvature * (self._sample() ** 2).mean(axis=0, dtype=np.float64)

    def coordinates(self, ridges: np.ndarray, columns: int, backend: Backend) -> Coordinates:
        """Choose coordinates for problems of these ridges (P,), their keys ascending, of `columns` columns in all."""
        floor = FLOOR * self.spread.mean()
        keys, factor_of = np.unique(ridge_keys(np.maximum(ridges, floor)), return_inverse=True)
        if self.moments is None and pays(self.rows.shape, len(keys), columns):
            self.moments, self.made = self._moments(backend), {}
        factors = backend.map(lambda key: self.made[key] if key in self.made else self._factor(key), keys.tolist())
        self.made = dict(zip(keys.tolist(), factors, strict=True))
        return Coordinates(tuple(self.made.values()), factor_of, self.curvature)

    def _factor(self, key: int) -> np.ndarray:
        """Return inv(L) with L L' = moments + ridge I, lower triangular (D, D), or the diagonal (D,) of one like it.

        In float32: by the floor of the ridge the condition is no more than D / FLOOR.
        """
        ridge = 2.0 ** (key / STEPS_PER_OCTAVE)
        if self.moments is None:
            return ((self.spread + ridge) ** -0.5).astype(np.float32)
        M = self.moments.copy()
        M[np.diag_indices_from(M)] += np.float32(ridge)
        L = np.linalg.cholesky(M)
        (invert,) = get_lapack_funcs(("trtri",), (L,))
        inverse, _ = invert(L.T)  # an upper triangle to LAPACK, which counts by columns
        return inverse.T

    def _moments(self, backend: Backend) -> np.ndarray:
        Z = self._sample()
        parts = backend.map(lambda part: part.T @ part, np.array_split(Z, backend.width))
        return np.sum(list(parts), axis=0) * np.float32(self.curvature / len(Z))

    def _sample(self) -> np.ndarray:
        """Standardise evenly spaced rows by the mean of all scalers: -> (m, D) float32."""
        n, dims = self.rows.shape
        at = np.unique(np.linspace(0, n - 1, min(n, ROWS_PER_DIM * dims)).astype(np.int64))
        Z = self.rows.take(at).astype(np.float32, copy=False)
        Z -= self.scalers.mean.mean(axis=0).astype(np.float32)
        Z *= (1 / self.scalers.scale).mean(axis=0).astype(np.float32)
        return Z


def pays(shape: tuple[int, int], n_factors: int, columns: int) -> bool:
    """Compare operations: the moments, the factors and their use, with the passes that they save."""
    n, dims = shape
    made = SLOW * (min(n, ROWS_PER_DIM * dims) * dims**2 + n_factors * dims**3 * 2 / 3)
    used = PASSES * 2 * dims**2 * columns
    return n >= dims and made + used < PASSES_SAVED * 4 * n * dims * columns


def _solve(factor: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Solve U factor = W for U: (m, D) -> (m, D)."""
    return np.asarray(solve_triangular(factor, flat.T, trans=1, lower=True)).T
