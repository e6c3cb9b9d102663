"""Ridge scores of rows left out one by one, or group by group, exactly and without a fit for each.

With H the matrix that maps targets to fitted values F, the residuals of rows S in a fit without them are
(I - H_SS)^-1 (Y_S - F_S): for one row, (Y_i - F_i) / (1 - H_ii) (Allen 1974; for groups, Golub, Heath and Wahba 1979).
The mean that centres the rows is left out with them: it is the 1/n in H. The scale of "std" is that of all rows; one
row of n moves it by O(1/n).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from classify.probe.backend import numpy_backend
from classify.probe.memo import Kept
from classify.probe.normal import Normal, on_smaller_side, shrinkage, spectrum, standardised
from classify.probe.path import Keep, RidgePath, Scored, penalties, side_by_side, tiles, walk
from classify.probe.rows import Rows
from classify.probe.transforms import transform_named

BATCH_BYTES = 8 << 20
"""Of rows in turned coordinates at a time."""


@dataclass(frozen=True, eq=False)
class Turned:
    """All rows in the coordinates U (n, r) in which their Gram matrix is diagonal: H = U diag(1 / (w + lam)) U' + 1/n.

    values w (r,), vectors (r, r), right (r, k) = U'Y of centred targets; `targets` (n, k) are +-1.
    """

    rows: Rows
    normal: Normal
    targets: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, rows: Rows, Y: np.ndarray, transform: str, kept: Kept) -> "Turned":
        """Turn all rows by one decomposition, which is kept: it is the same for all labels."""
        normal = on_smaller_side(rows, Y, transform)
        found = kept.remember("spectrum", lambda: _decomposed(normal.gram))
        values, vectors = found["values"], found["vectors"]
        right = vectors.T @ normal.right
        if normal.rows is not None:
            right *= np.sqrt(values)[:, None]
        return cls(rows, normal, Y, values, vectors, right)

    def coordinates(self, at: np.ndarray) -> np.ndarray:
        """Return the coordinates of some rows: (m,) -> (m, r)."""
        if self.normal.rows is not None:
            return self.vectors[at] * np.sqrt(self.values)
        return standardised(self.rows.take(at), self.normal.mean, self.normal.scale) @ self.vectors

    def positives(self) -> np.ndarray:
        """Count the rows of each class: (k,)."""
        return np.rint((self.normal.targets + 1) * self.normal.n / 2)


def _decomposed(gram: np.ndarray) -> dict[str, np.ndarray]:
    with numpy_backend():
        values, vectors = spectrum(gram)
    return {"values": values, "vectors": vectors}


def loo_path(
    rows: Rows,
    Y: np.ndarray,
    transform: str,
    lams: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    kept: Kept | None = None,
) -> RidgePath:
    """Leave out every row, or every group of rows, under all penalties, by one decomposition of the smaller side.

    Y (n, k) +-1; lams (L,) or the default grid; groups (n,) codes. Means are exact; the scale of "std" is that of all
    rows. Groups of m rows cost a solution of m equations each per penalty: they should be small, and fewer than all.
    `kept` is for results that depend on these rows in this transform.
    """
    if transform_named(transform).whitened:
        raise ValueError("whitening sees every row: leave out folds instead")
    started = time.perf_counter()
    lams = penalties(rows, transform) if lams is None else np.asarray(lams, float)
    turned = Turned.of(rows, Y, transform, kept or Kept())
    return walk(partial(_scores, turned, transform, groups), lams, Y.shape, _kind(groups), started)


def _kind(groups: np.ndarray | None) -> str:
    if groups is None:
        return "exact leave-one-out"
    return f"exact leave-group-out (at most {np.bincount(groups).max()} rows a group)"


def _scores(
    turned: Turned, transform: str, groups: np.ndarray | None, lams: np.ndarray, keep: Keep
) -> Iterator[Scored]:
    factors = shrinkage(turned.values, lams, transform, turned.rows.shape)

    def score(at: np.ndarray) -> list[Scored]:
        scored = (_without_groups if at.shape[1] > 1 else _without_rows)(turned, factors, at)
        return [(rows, which, keep(scores)) for rows, which, scores in scored]

    with numpy_backend() as cores:
        for scored in side_by_side(cores, score, _batches(groups, turned.normal.n, len(turned.values))):
            yield from scored


def _batches(groups: np.ndarray | None, n: int, r: int) -> Iterator[np.ndarray]:
    """Yield positions of rows, g groups of the same m rows at a time: (g, m)."""
    order = np.arange(n) if groups is None else np.argsort(groups, kind="stable")
    counts = np.ones(n, np.int64) if groups is None else np.unique(groups, return_counts=True)[1]
    starts = np.cumsum(counts) - counts
    for m in np.unique(counts).tolist():
        members = order[starts[counts == m][:, None] + np.arange(m)]
        step = max(1, BATCH_BYTES // (8 * r * m))
        yield from (members[start : start + step] for start in range(0, len(members), step))


def _without_rows(turned: Turned, factors: np.ndarray, at: np.ndarray) -> Iterator[Scored]:
    """Score single rows left out: at (m, 1)."""
    at = at[:, 0]
    U, Y = turned.coordinates(at), turned.targets[at].astype(float)
    left = 1 - U**2 @ factors - 1 / turned.normal.n
    lost = turned.positives() - (Y > 0) < 0.5
    for here, which in tiles(len(at), factors.shape[1], Y.shape[1]):
        weights = factors[:, which, None] * turned.right[:, None, :]
        fitted = np.tensordot(U[here], weights, axes=1) + turned.normal.targets
        scores = Y[here, None] - (Y[here, None] - fitted) / left[here, which, None]
        yield at[here], which, np.where(lost[here, None], -np.inf, scores)


def _without_groups(turned: Turned, factors: np.ndarray, at: np.ndarray) -> Iterator[Scored]:
    """Score groups left out, each of m rows: at (g, m)."""
    (g, m), k = at.shape, turned.targets.shape[1]
    U = turned.coordinates(at.ravel()).reshape(g, m, -1)
    Y = turned.targets[at].astype(float)
    lost = turned.positives() - (Y > 0).sum(axis=1, keepdims=True) < 0.5
    for number, factor in enumerate(factors.T):
        H = (U * factor) @ U.transpose(0, 2, 1) + 1 / turned.normal.n
        fitted = U @ (factor[:, None] * turned.right) + turned.normal.targets
        scores = Y - np.linalg.solve(np.eye(m) - H, Y - fitted)
        yield at.ravel(), slice(number, number + 1), np.where(lost, -np.inf, scores).reshape(g * m, 1, k)
