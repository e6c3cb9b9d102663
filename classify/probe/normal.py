"""The normal equations of ridge regression, on the smaller side: (D, D) between features, or (n, n) between rows.

Both sides have the same nonzero eigenvalues, and from either the coefficients of all penalties follow at once: with
G = V diag(w) V', (G + lam I)^-1 = V diag(1 / (w + lam)) V'.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from classify.probe.backend import Backend, open_backend, open_serial
from classify.probe.memory import FLOAT64, check_gram
from classify.probe.moments import Moments, all_moments, mean_std, part_moments, sum_of
from classify.probe.rows import Rows, subset
from classify.probe.transforms import kept_directions, scale_of, transform_named, whitened_dims

MATRICES = 4
"""Of the size of the Gram matrix that are held at a time, besides those of folds: it, its eigenvectors, work space."""

Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Normal:
    """Ridge regression on n training rows: (gram + lam I) a = right, and the coefficients are `lift(a)`.

    mean, scale (D,) standardise the features; targets (k,) is the mean of the targets. On the side of the features,
    gram (D, D) and right (D, k) are products of features with features and targets. On the side of the rows, gram
    (n, n) is their kernel, right (n, k) the centred targets, and `rows` the training rows. `present` (k,) tells which
    classes have a training row: no other may win. `gram` and `right` are on the device, all else is NumPy's.
    """

    n: int
    mean: np.ndarray
    scale: np.ndarray
    targets: np.ndarray
    present: np.ndarray
    gram: Any
    right: Any
    rows: Rows | None = None

    @property
    def intercept(self) -> np.ndarray:
        """The mean of the targets, -inf for classes without a training row: (k,)."""
        return np.where(self.present, self.targets, -np.inf)

    def standardised(self, X: np.ndarray, backend: Backend) -> Any:
        """Bring rows to the device, standardised: (m, D) -> (m, D) float64."""
        return standardised(backend.moved(X), backend.array(self.mean), backend.array(self.scale))

    def lift(self, a: Any, backend: Backend) -> Any:
        """Return the coefficients of solutions, for features less their mean but not scaled: (r, m) -> (D, m)."""
        scale = backend.array(self.scale)[:, None]
        if self.rows is None:
            return a / scale
        lifted = backend.zeros((len(self.mean), a.shape[1]))
        for at, block in self.rows.blocks():
            lifted += self.standardised(block, backend).T @ a[at]
        return lifted / scale


def standardised(X: Any, mean: Any, scale: Any) -> Any:
    """Return (X - mean) / scale in float64, all on one device: (m, D); features of scale inf become 0."""
    Z = X - mean
    Z *= 1 / scale
    return Z


def on_smaller_side(rows: Rows, Y: np.ndarray, transform: str, device: str = "cpu") -> Normal:
    """Set up ridge regression of Y (n, k) on all rows, in one pass over them on the side of the features."""
    n, dims = rows.shape
    with (open_serial if n < dims else open_backend)(device) as backend:
        _check_room(rows.shape, MATRICES, backend)
        if n < dims:
            return between_rows(rows, Y, transform, backend)
        return between_features(all_moments(rows, Y, backend), transform, backend)


def of_folds(rows: Rows, Y: np.ndarray, folds: Folds, transform: str, backend: Backend) -> list[Callable[[], Normal]]:
    """Prepare ridge regression on the training rows of each fold, to be set up by a call: all on the smaller side."""
    sizes, dims = [len(train) for train, _ in folds], rows.shape[1]
    _check_room((max(sizes), dims), MATRICES + len(folds), backend)
    if min(sizes) < dims:
        return [partial(between_rows, subset(rows, train), Y[train], transform, backend) for train, _ in folds]
    return [partial(_without, *parts, transform, backend) for parts in _fold_moments(rows, Y, folds, backend)]


def _check_room(shape: tuple[int, int], n_matrices: int, backend: Backend) -> None:
    """Raise FitError where so many Gram matrices of (n, D) rows do not fit into memory, or into that of the GPU."""
    check_gram(*shape, n_matrices)
    backend.check_room(n_matrices * min(shape) ** 2 * FLOAT64)


def _without(whole: Moments, left_out: Sequence[Moments], transform: str, backend: Backend) -> Normal:
    return between_features(whole - sum_of(left_out) if left_out else whole, transform, backend)


def between_features(moments: Moments, transform: str, backend: Backend) -> Normal:
    """Set up the normal equations between features, from the moments of the training rows."""
    mean, std, targets, present = (
        backend.host(each) for each in (moments.mean, moments.std(), moments.intercept, _present(moments))
    )
    scale = scale_of(std) if transform_named(transform).scaled else np.ones_like(std)
    divisor = backend.array(scale)
    gram = moments.centred_gram()
    gram /= divisor
    gram /= divisor[:, None]
    right = moments.centred_cross() / divisor[:, None]
    return Normal(moments.n, mean, scale, targets, present, gram, right)


def between_rows(rows: Rows, Y: np.ndarray, transform: str, backend: Backend) -> Normal:
    """Set up the normal equations between training rows, by their kernel."""
    n = rows.shape[0]
    mean, std = (each[0] for each in mean_std(rows, np.ones((1, n), bool), backend))
    scale = scale_of(std) if transform_named(transform).scaled else np.ones_like(std)
    targets = Y.mean(axis=0, dtype=np.float64)
    present = np.asarray((Y > 0).any(axis=0))
    gram = kernel(rows, backend.array(mean), backend.array(scale), backend)
    return Normal(n, mean, scale, targets, present, gram, backend.array(Y - targets), rows)


def kernel(rows: Rows, mean: Any, scale: Any, backend: Backend) -> Any:
    """Multiply all standardised rows with each other: (n, n) float64, two blocks on the device at a time."""
    n = rows.shape[0]
    products = backend.zeros((n, n))
    for at, block in rows.blocks():
        Z = standardised(backend.moved(block), mean, scale)
        products[at, at] = Z @ Z.T
        for to, other in rows.blocks():
            if to.start >= at.start:
                break
            products[at, to] = Z @ standardised(backend.moved(other), mean, scale).T
            products[to, at] = products[at, to].T
    return products


def spectrum(gram: Any, backend: Backend) -> tuple[np.ndarray, Any]:
    """Decompose a Gram matrix: eigenvalues (r,) ascending, NumPy's, and eigenvectors as columns (r, r), the device's.

    Eigenvalues that are rounding are set to 0: divided by a small penalty they would not be small.
    """
    values, vectors = backend.xp.linalg.eigh(gram)
    values = backend.host(values)
    rounding = len(values) * np.finfo(float).eps * max(values[-1], 0.0)
    return np.where(values > rounding, values, 0.0), vectors


def shrinkage(values: np.ndarray, lams: np.ndarray, transform: str, shape: tuple[int, int]) -> np.ndarray:
    """Return what each direction of G is multiplied with in place of 1 / w: (r,), (L,) -> (r, L).

    1 / (w + lam), as in (G + lam I)^-1. After whitening to unit variance all directions that are kept have n in place
    of w: n / (w (n + lam)). `shape` (n, D) is that of the training rows.
    """
    if not transform_named(transform).whitened:
        return 1 / (values[:, None] + lams)
    n, factors = shape[0], np.zeros((len(values), len(lams)))
    kept = kept_directions(values, whitened_dims(*shape))
    factors[kept] = n / (values[kept, None] * (n + lams))
    return factors


def coefficients(normal: Normal, lams: np.ndarray, transform: str, backend: Backend) -> Any:
    """Fit all penalties by one decomposition: (D, L, k) on the device, for features less their mean."""
    values, vectors = spectrum(normal.gram, backend)
    factors = backend.array(shrinkage(values, lams, transform, (normal.n, len(normal.mean))))
    turned = vectors.T @ normal.right
    stacked = (factors[:, :, None] * turned[:, None, :]).reshape(len(values), -1)
    return normal.lift(vectors @ stacked, backend).reshape(len(normal.mean), len(lams), -1)


def _present(moments: Moments) -> Any:
    """Tell which targets are +1 anywhere, those of the others being -1: (k,) bool."""
    return moments.targets + moments.n > 0.5


def _fold_moments(rows: Rows, Y: np.ndarray, folds: Folds, backend: Backend) -> Iterator[tuple[Moments, list[Moments]]]:
    """Yield for each fold the moments of rows among which are its training rows, and of the parts that are not."""
    parts, member = fold_parts(folds, rows.shape[0])
    if member.shape[1] > len(folds) + 1:  # folds that overlap in many ways: their parts would be more than they are
        for train, _ in folds:
            yield all_moments(subset(rows, train), Y[train], backend), []
        return
    found = part_moments(rows, Y, parts, member.shape[1], backend)
    whole = sum_of(found)
    for inside in member:
        yield whole, [part for part, is_in in zip(found, inside, strict=True) if not is_in]


def fold_parts(folds: Folds, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Part the rows by the folds that train on them: -> part of each row (n,), -1 for none; (n_folds, n_parts) bool."""
    inside = np.zeros((n, len(folds)), bool)
    for number, (train, _) in enumerate(folds):
        inside[train, number] = True
    kinds, parts = np.unique(inside, axis=0, return_inverse=True)
    parts = parts.reshape(-1)
    if not kinds[0].any():  # sorted, so that rows in no fold come first
        kinds, parts = kinds[1:], parts - 1
    return parts, kinds.T
