"""The transforms of features before a head: a map of each row alone, then what is fitted on training rows only.

The maps of rows are `scoring.ROWWISE`: bundles need them without this engine. Here stand the fitted parts, as sklearn's
transformers for pipelines of any head; the closed forms in `ridge` reach the same by moments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from classify.scoring import ROWWISE
from extract.errors import FitError, unknown

STD_FLOOR = 1e-6
"""Features that vary by less are dropped: their weight is 0."""

WHITENED = 256
"""Components that whitening keeps at most."""

EIGENVALUE_FLOOR = 1e-6
"""Of the largest: directions of less variance are rounding, and are dropped."""

WIDE = 4
"""Whitening is a candidate where there are more than so many features per training row."""


@dataclass(frozen=True)
class Transform:
    """One transform: its map of rows, and what is fitted after it besides a mean.

    `scaled` divides each feature by its standard deviation over the training rows; `whitened` goes over to their
    leading principal components, each divided by its own.
    """

    rowwise: Callable[[np.ndarray], np.ndarray]
    scaled: bool = False
    whitened: bool = False


TRANSFORMS = {
    "std": Transform(ROWWISE["std"], scaled=True),
    "l2": Transform(ROWWISE["l2"]),
    "pow": Transform(ROWWISE["pow"]),
    "pcaw": Transform(ROWWISE["pcaw"], whitened=True),
    "none": Transform(ROWWISE["none"]),
}


def transform_named(name: str) -> Transform:
    """Return a transform; raises FitError with the nearest name where there is none."""
    if name not in TRANSFORMS:
        unknown("transform", name, TRANSFORMS, FitError)
    return TRANSFORMS[name]


def rowwise(name: str, X: np.ndarray) -> np.ndarray:
    """Apply a transform's map to each row alone: (n, D) -> (n, D) of the same type."""
    return transform_named(name).rowwise(X)


def candidates(n_train: int, dims: int) -> list[str]:
    """Name the transforms that are worth a trial with so many rows in the smallest training fold."""
    return ["std", "l2", "pow"] + (["pcaw"] if dims > WIDE * n_train else [])


def make_steps(name: str, n_train: int, dims: int) -> list[Any]:
    """Return a transform as sklearn's transformers, for the pipeline of any head; none for "none"."""
    transform = transform_named(name)
    if transform.scaled:
        return [Standardiser()]
    if transform.whitened:
        return [Whitener(n_components=whitened_dims(n_train, dims))]
    return [] if name == "none" else [FunctionTransformer(transform.rowwise)]


def whitened_dims(n_train: int, dims: int) -> int:
    """Say how many components whitening keeps: centred rows span one dimension less than there are rows."""
    return min(WHITENED, n_train - 1, dims)


def scale_of(std: np.ndarray) -> np.ndarray:
    """Turn standard deviations into divisors, inf for the features that are dropped."""
    return np.where(std < STD_FLOOR, np.inf, std)


def kept_directions(values: np.ndarray, k: int) -> np.ndarray:
    """Choose principal components: eigenvalues (r,) ascending -> the numbers of at most k of them, largest first."""
    largest = np.arange(len(values))[::-1][:k]
    return largest[values[largest] > EIGENVALUE_FLOOR * max(values[-1], 0.0)]


class Standardiser(StandardScaler):
    """sklearn's StandardScaler, but that features of a standard deviation below STD_FLOOR become 0."""

    def __init__(self) -> None:
        super().__init__()

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn mean and standard deviation of each feature: (n, D)."""
        super().fit(X, y, sample_weight)
        self.scale_ = scale_of(np.sqrt(np.asarray(self.var_)))
        return self


class Whitener(TransformerMixin, BaseEstimator):
    """Go over to the leading principal components, each of variance 1 over the training rows: (n, D) -> (n, k).

    sklearn's `PCA(whiten=True)`, but with the population's variance, as StandardScaler has it, and without directions
    of next to no variance, which it would blow up. `components_` (k, D) has the scale in it.
    """

    def __init__(self, n_components: int = WHITENED) -> None:
        self.n_components = n_components

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the components: (n, D)."""
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self.mean_ = X.mean(axis=0)
        _, spreads, directions = np.linalg.svd(X - self.mean_, full_matrices=False)
        values = spreads**2 / len(X)
        kept = kept_directions(values[::-1], min(self.n_components, len(X) - 1))
        at = len(values) - 1 - kept
        self.components_ = directions[at] / np.sqrt(values[at])[:, None]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Whiten rows: (n, D) -> (n, k)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return (X - self.mean_) @ self.components_.T
