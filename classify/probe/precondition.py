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

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from classify.probe.backend import Backend
from classify.probe.moments import Scalers
from classify.probe.rows import Rows

FLOOR = 2.0
"""Of the ridge in M, in units of the mean diagonal of a Z'Z/n: 1 to 3 did about as well."""
ROWS_PER_DIM = 4
"""Rows that the moments are estimated from, for each feature: more did not save evaluations."""
STEPS_PER_OCTAVE = 2
"""Ridges within a factor of 2^(1/2) share a Cholesky factor."""
PASSES_SAVED = 15
"""Passes over the rows that a full factor saves at least against a diagonal one, measured at n from D to 25 D."""


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
            product = flat * factor if factor.ndim == 1 else flat @ (factor.T if transposed else factor)
            parts.append(product.reshape(V[at].shape))
        return parts[0] if len(parts) == 1 else self.backend.xp.concatenate(parts)


def ridge_keys(ridges: np.ndarray) -> np.ndarray:
    """Number ridges (P,) so that those of one number are about the same."""
    return np.round(STEPS_PER_OCTAVE * np.log2(ridges)).astype(np.int64)


def make_coordinates(
    rows: Rows, scalers: Scalers, ridges: np.ndarray, curvature: float, columns: int, backend: Backend
) -> Coordinates:
    """Choose coordinates for problems of these ridges (P,), their keys ascending, and of `columns` columns in all."""
    Z = _sample(rows, scalers, ROWS_PER_DIM * rows.shape[1])
    spread = curvature * (Z**2).mean(axis=0, dtype=np.float64)
    keys, factor_of = np.unique(ridge_keys(np.maximum(ridges, FLOOR * spread.mean())), return_inverse=True)
    grid = [2.0 ** (key / STEPS_PER_OCTAVE) for key in keys.tolist()]
    if pays(rows.shape, len(grid), columns):
        moments = (Z.T @ Z).astype(np.float64) * (curvature / len(Z))
        factors = list(backend.map(partial(_inverse_factor, moments), grid))
    else:
        factors = [((spread + ridge) ** -0.5).astype(np.float32) for ridge in grid]
    return Coordinates(tuple(factors), factor_of, curvature)


def pays(shape: tuple[int, int], n_factors: int, columns: int) -> bool:
    """Compare operations: the moments, the factors and their use, with the passes that they save."""
    n, dims = shape
    cost = min(n, ROWS_PER_DIM * dims) * dims**2 + n_factors * dims**3 + PASSES_SAVED * 4 * dims**2 * columns
    return n >= dims and cost < PASSES_SAVED * 4 * n * dims * columns


def _sample(rows: Rows, scalers: Scalers, m: int) -> np.ndarray:
    """Standardise evenly spaced rows by the mean of all scalers: -> (m, D) float32."""
    n = rows.shape[0]
    at = np.unique(np.linspace(0, n - 1, min(n, m)).astype(np.int64))
    Z = rows.take(at).astype(np.float32, copy=False)
    Z -= scalers.mean.mean(axis=0).astype(np.float32)
    Z *= (1 / scalers.scale).mean(axis=0).astype(np.float32)
    return Z


def _inverse_factor(moments: np.ndarray, ridge: float) -> np.ndarray:
    """Return inv(L) with L L' = moments + ridge I: (D, D) -> (D, D), lower triangular."""
    M = moments.copy()
    M[np.diag_indices_from(M)] += ridge
    L = np.linalg.cholesky(M)
    return np.ascontiguousarray(solve_triangular(L, np.eye(len(L)), lower=True), np.float32)


def _solve(factor: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Solve U factor = W for U: (m, D) -> (m, D)."""
    return np.asarray(solve_triangular(factor, flat.T, trans=1, lower=True)).T
