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
from typing import Any

import numpy as np

from classify.probe.backend import Backend, open_backend, open_serial
from classify.probe.memo import Kept
from classify.probe.normal import Normal, on_smaller_side, shrinkage, spectrum
from classify.probe.path import Keep, RidgePath, Scored, penalties, side_by_side, tiles, walk
from classify.probe.rows import Rows
from classify.probe.transforms import transform_named

BATCH_BYTES = 8 << 20
"""Of rows in turned coordinates at a time."""


@dataclass(frozen=True, eq=False)
class Turned:
    """All rows in the coordinates U (n, r) in which their Gram matrix is diagonal: H = U diag(1 / (w + lam)) U' + 1/n.

    values w (r,); vectors (r, r) and right (r, k) = U'Y of centred targets, on the device; `targets` (n, k) are +-1.
    """

    rows: Rows
    normal: Normal
    targets: np.ndarray
    values: np.ndarray
    vectors: Any
    right: Any
    device: str

    @classmethod
    def of(cls, rows: Rows, Y: np.ndarray, transform: str, kept: Kept, device: str) -> "Turned":
        """Turn all rows by one decomposition, which is kept: it is the same for all labels."""
        normal = on_smaller_side(rows, Y, transform, device)
        found = kept.remember("spectrum", lambda: _decomposed(normal.gram, device))
        with open_serial(device) as backend:
            vectors = backend.array(found["vectors"])
            right = vectors.T @ normal.right
            if normal.rows is not None:
                right *= backend.array(np.sqrt(found["values"]))[:, None]
        return cls(rows, normal, Y, found["values"], vectors, right, device)

    def coordinates(self, at: np.ndarray, backend: Backend) -> Any:
        """Return the coordinates of some rows: (m,) -> (m, r) on the device."""
        if self.normal.rows is not None:
            return self.vectors[at] * backend.array(np.sqrt(self.values))
        return self.normal.standardised(self.rows.take(at), backend) @ self.vectors

    def positives(self) -> np.ndarray:
        """Count the rows of each class: (k,)."""
        return np.rint((self.normal.targets + 1) * self.normal.n / 2)


def _decomposed(gram: Any, device: str) -> dict[str, np.ndarray]:
    with open_backend(device) as backend:
        values, vectors = spectrum(gram, backend)
        return {"values": values, "vectors": backend.host(vectors)}


def loo_path(
    rows: Rows,
    Y: np.ndarray,
    transform: str,
    lams: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    kept: Kept | None = None,
    *,
    device: str = "cpu",
) -> RidgePath:
    """Leave out every row, or every group of rows, under all penalties, by one decomposition of the smaller side.

    Y (n, k) +-1; lams (L,) or the default grid; groups (n,) codes. Means are exact; the scale of "std" is that of all
    rows. Groups of m rows cost a solution of m equations each per penalty: they should be small, and fewer than all.
    `kept` is for results that depend on these rows in this transform.
    """
    if transform_named(transform).whitened:
        raise ValueError("whitening sees every row: leave out folds instead")
    started = time.perf_counter()
    lams = penalties(rows, transform, device) if lams is None else np.asarray(lams, float)
    turned = Turned.of(rows, Y, transform, kept or Kept(), device)
    return walk(partial(_scores, turned, transform, groups), lams, Y.shape, _kind(groups), started)


def _kind(groups: np.ndarray | None) -> str:
    if groups is None:
        return "exact leave-one-out"
    return f"exact leave-group-out (at most {np.bincount(groups).max()} rows a group)"


def _scores(
    turned: Turned, transform: str, groups: np.ndarray | None, lams: np.ndarray, keep: Keep
) -> Iterator[Scored]:
    with open_backend(turned.device) as backend:
        factors = backend.array(shrinkage(turned.values, lams, transform, turned.rows.shape))

        def score(at: np.ndarray) -> list[Scored]:
            scored = (_without_groups if at.shape[1] > 1 else _without_rows)(turned, factors, at, backend)
            return [(rows, which, backend.host(keep(scores))) for rows, which, scores in scored]

        for scored in side_by_side(backend, score, _batches(groups, turned.normal.n, len(turned.values))):
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


def _without_rows(turned: Turned, factors: Any, at: np.ndarray, backend: Backend) -> Iterator[Scored]:
    """Score single rows left out: at (m, 1)."""
    at, xp = at[:, 0], backend.xp
    U, Y, mean = turned.coordinates(at, backend), *map(backend.array, (turned.targets[at], turned.normal.targets))
    left = 1 - U**2 @ factors - 1 / turned.normal.n
    lost = backend.array(turned.positives() - (turned.targets[at] > 0) < 0.5, "bool")
    for here, which in tiles(len(at), factors.shape[1], Y.shape[1]):
        weights = factors[:, which, None] * turned.right[:, None, :]
        fitted = xp.tensordot(U[here], weights, 1) + mean
        scores = Y[here, None] - (Y[here, None] - fitted) / left[here, which, None]
        yield at[here], which, xp.where(lost[here, None], -np.inf, scores)


def _without_groups(turned: Turned, factors: Any, at: np.ndarray, backend: Backend) -> Iterator[Scored]:
    """Score groups left out, each of m rows: at (g, m)."""
    (g, m), k, xp = at.shape, turned.targets.shape[1], backend.xp
    U = turned.coordinates(at.ravel(), backend).reshape(g, m, -1)
    Y, mean, identity = map(backend.array, (turned.targets[at], turned.normal.targets, np.eye(m)))
    own = (turned.targets[at] > 0).sum(axis=1, keepdims=True)
    lost = backend.array(turned.positives() - own < 0.5, "bool")
    for number, factor in enumerate(factors.T):
        H = (U * factor) @ U.swapaxes(1, 2) + 1 / turned.normal.n
        fitted = U @ (factor[:, None] * turned.right) + mean
        scores = Y - xp.linalg.solve(identity - H, Y - fitted)
        yield at.ravel(), slice(number, number + 1), xp.where(lost, -np.inf, scores).reshape(g * m, 1, k)
