"""Ridge classifiers: a whole path of penalties judged on rows that no fit saw, and the fit of one penalty.

Targets are +1 for a row's class and -1 for the others, as in sklearn's RidgeClassifier, whose alpha is `lam` here.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from classify.probe.backend import Backend, open_backend
from classify.probe.linear import Linear
from classify.probe.loo import loo_path
from classify.probe.memo import Kept
from classify.probe.normal import Folds, Normal, coefficients, of_folds, on_smaller_side
from classify.probe.path import Keep, RidgePath, Scored, penalties, side_by_side, tiles, walk
from classify.probe.rows import Rows, in_memory
from classify.probe.transforms import transform_named

SMALL_GROUP = 32
"""Rows of the largest group up to which groups are left out exactly, each by a small system of equations."""

COEF_BYTES = 1 << 30
"""Of the coefficients of several folds, tested in one pass over the rows."""

__all__ = ["RidgePath", "fit_ridge", "fold_path", "loo_path", "penalties", "scan", "targets"]


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of one fold: mean (D,), coef (D, L, k) for features less their mean, intercept (k,), on the device."""

    mean: Any
    coef: Any
    intercept: Any

    @classmethod
    def of(cls, normal: Normal, lams: np.ndarray, transform: str, backend: Backend) -> "Heads":
        """Fit all penalties."""
        coef = coefficients(normal, lams, transform, backend)
        return cls(backend.array(normal.mean), coef, backend.array(normal.intercept))


@dataclass(frozen=True, eq=False)
class Judge:
    """Ridge regression of Y (n, k) on rows, judged fold by fold on one device."""

    rows: Rows
    Y: np.ndarray
    folds: Folds
    transform: str
    device: str

    def scores(self, lams: np.ndarray, keep: Keep) -> Iterator[Scored]:
        """Score the test rows of all folds, fitted on their training rows."""
        (n, dims), k = self.rows.shape, self.Y.shape[1]
        tested, at_once = _tested_by(self.folds, n), max(1, COEF_BYTES // (8 * dims * len(lams) * k))
        with open_backend(self.device) as backend:
            prepared = of_folds(self.rows, self.Y, self.folds, self.transform, backend)

            def fit(number: int) -> tuple[int, Heads]:
                return number, Heads.of(prepared[number](), lams, self.transform, backend)

            for first in range(0, len(self.folds), at_once):
                some = dict(side_by_side(backend, fit, range(first, min(first + at_once, len(self.folds)))))
                yield from _tested(self.rows, tested, some, keep, backend)


def targets(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Turn codes (n,) into targets of ridge: +1 for the class, -1 for the others, (n, k) int8."""
    return np.where(y[:, None] == np.arange(n_classes), np.int8(1), np.int8(-1))


def scan(
    rows: Rows,
    Y: np.ndarray,
    folds: Folds,
    groups: np.ndarray | None,
    transform: str,
    kept: Kept | None = None,
    *,
    device: str = "cpu",
) -> RidgePath:
    """Judge all default penalties on rows left out in the cheapest way that is exact; `kind` of the path says which.

    One by one without groups; group by group where the largest has at most SMALL_GROUP rows; else by the given folds:
    also for whitening, which must not see the rows left out, and for rows that are streamed.
    """
    if why := _why_folds(rows, groups, transform):
        path = fold_path(rows, Y, folds, None, transform, device)
        return replace(path, kind=f"{path.kind}: {why}")
    return loo_path(rows, Y, transform, groups=groups, kept=kept, device=device)


def _why_folds(rows: Rows, groups: np.ndarray | None, transform: str) -> str:
    """Say why single rows or groups are not left out by themselves, or ""."""
    if transform_named(transform).whitened:
        return "whitening is fitted anew without the rows left out"
    if not in_memory(rows):
        return "the rows are streamed"
    if groups is not None and (largest := int(np.bincount(groups).max())) > SMALL_GROUP:
        return f"the largest group has {largest:,} rows"
    return ""


def fold_path(
    rows: Rows, Y: np.ndarray, folds: Folds, alphas: np.ndarray | None, transform: str, device: str = "cpu"
) -> RidgePath:
    """Leave out fold by fold under all penalties: one decomposition per fold, the transform fitted anew in each.

    Equal to `Pipeline(make_steps(transform), RidgeClassifier(alpha))` on these folds. Y (n, k) +-1; alphas (L,) or the
    default grid. A row may be in the test part of one fold at most.
    """
    started = time.perf_counter()
    lams = penalties(rows, transform, device) if alphas is None else np.asarray(alphas, float)
    judge = Judge(rows, Y, folds, transform, device)
    return walk(judge.scores, lams, Y.shape, f"{len(folds)} folds", started)


def _tested_by(folds: Folds, n: int) -> np.ndarray:
    """Return the number of the fold that tests each row: (n,), -1 for none."""
    tested = np.full(n, -1)
    for number, (_, test) in enumerate(folds):
        if (tested[test] >= 0).any():
            raise ValueError("a row is tested by two folds")
        tested[test] = number
    return tested


def _tested(rows: Rows, tested: np.ndarray, folds: dict[int, Heads], keep: Keep, backend: Backend) -> Iterator[Scored]:
    """Score the test rows of some folds in one pass over all rows."""
    for at, block in rows.blocks():

        def score(number: int, at: slice = at, block: np.ndarray = block) -> list[Scored]:
            here = np.flatnonzero(tested[at] == number)
            return list(_scored(block[here], here + at.start, folds[number], keep, backend))

        for scored in side_by_side(backend, score, folds):
            yield from scored


def _scored(X: np.ndarray, at: np.ndarray, heads: Heads, keep: Keep, backend: Backend) -> Iterator[Scored]:
    _, n_lams, k = heads.coef.shape
    Z = backend.moved(X) - heads.mean
    for part, which in tiles(len(at), n_lams, k):
        scores = backend.xp.tensordot(Z[part], heads.coef[:, which], 1)
        scores += heads.intercept
        yield at[part], which, backend.host(keep(scores))


def fit_ridge(rows: Rows, Y: np.ndarray, alpha: float, transform: str, device: str = "cpu") -> Linear:
    """Fit one penalty on all rows, streamed if need be: the coefficients of sklearn's Ridge on targets Y (n, k)."""
    normal = on_smaller_side(rows, Y, transform, device)
    with open_backend(device) as backend:
        if transform_named(transform).whitened:
            coef = coefficients(normal, np.array([alpha]), transform, backend)[:, 0]
        else:
            coef = normal.lift(_solved(normal, alpha, backend), backend)
        coef = backend.host(coef).T
    return Linear.of(normal.mean, normal.scale, coef * _divisor(normal), normal.intercept)


def _solved(normal: Normal, alpha: float, backend: Backend) -> Any:
    """Solve for one penalty, which takes a tenth of the time of a decomposition: (r, k)."""
    penalty = backend.xp.diag(backend.array(np.full(len(normal.gram), alpha)))
    return backend.solve_positive(normal.gram + penalty, normal.right)


def _divisor(normal: Normal) -> np.ndarray:
    """Return what turns coefficients of centred features into those of standardised ones: (D,), 0 for the dropped."""
    return np.where(np.isfinite(normal.scale), normal.scale, 0.0)
