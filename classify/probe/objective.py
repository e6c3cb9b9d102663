"""What L-BFGS sees of logistic regressions: mean losses with their penalties, by coordinates, for many at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classify.probe.backend import Backend
from classify.probe.moments import Scalers
from classify.probe.passes import LOSSES, NEVER, Folded, Passes
from classify.probe.precondition import Applied, ridge_keys
from classify.probe.rows import Rows
from extract.errors import FitError, OptionError, unknown


@dataclass(frozen=True, eq=False)
class Asked:
    """What all problems share: masks (M, n) bool say which rows train, scalers are those of the masks.

    "softmax" takes codes y (n,), and a class that a mask lacks gets no weights and a score that never wins. "sigmoid"
    takes y (n, k) of 0 and 1, one class against the rest each; a class that all or none of a mask's N rows have gets
    weights 0 and the logit of (n + 1/2) / (N - n + 1/2). `weights` (n,) count rows several times over.

    Features that are not standardised are divided by one `unit`, their spread, and weights grow with it: the same
    problem, in which gradients, and so the tolerance, mean the same whatever the length of the rows.
    """

    rows: Rows
    y: np.ndarray
    masks: np.ndarray
    scalers: Scalers
    n_classes: int
    loss: str = "softmax"
    weights: np.ndarray | None = None
    unit: float = 1.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            unknown("loss", self.loss, LOSSES, OptionError)

    def counts(self) -> np.ndarray:
        """How often each row counts: (n,) float64."""
        return np.ones(len(self.y)) if self.weights is None else np.asarray(self.weights, np.float64)

    def totals(self) -> np.ndarray:
        """Add up the weights of each mask: (M,)."""
        counts = self.counts()
        return np.array([counts[mask].sum() for mask in self.masks])

    def held(self) -> np.ndarray:
        """Add up the weights of each class in each mask: (M, k)."""
        counts = self.counts()
        if self.loss == "sigmoid":
            return np.array([counts[mask] @ self.y[mask] for mask in self.masks])
        return np.array([np.bincount(self.y[m], counts[m], self.n_classes) for m in self.masks])


@dataclass(frozen=True, eq=False)
class Problems:
    """P problems in the order of their ridges: an index of a mask each, C, and the ridge of the mean loss, (P,).

    `order` (P,) says which was which. By mask: `total` (M,) weight; `live` (M, k), the classes that have something to
    learn; `prior` (M, k), biases to set out from, which the other classes keep.
    """

    order: np.ndarray
    mask: np.ndarray
    C: np.ndarray
    ridge: np.ndarray
    total: np.ndarray
    live: np.ndarray
    prior: np.ndarray


def lay_out(asked: Asked, problems: Sequence[tuple[int, float]]) -> Problems:
    """Work out what follows from masks and C; in a mask of two classes, sklearn's one column is our two with C/2."""
    total, held = asked.totals(), asked.held()
    if not (total > 0).all():
        raise FitError("a training set has no rows", remedy="Take fewer folds, or give more images")
    live, prior = PRIORS[asked.loss](held, total[:, None])
    mask, C = np.array([m for m, _ in problems]), np.array([C for _, C in problems], np.float64)
    halved = np.where((asked.loss == "softmax") & (live.sum(axis=1) == 2), 0.5, 1.0)[mask]
    ridge = 1 / (halved * C * asked.unit**2 * total[mask])
    order = np.argsort(ridge_keys(ridge), kind="stable")
    return Problems(order, mask[order], C[order], ridge[order], total, live, prior)


def _log_shares(held: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the shares of the classes, less their mean: sums over classes are 0, as they stay."""
    live = held > 0
    log = np.log(np.where(live, held, 1.0))
    return live, np.where(live, log - log.sum(axis=1, keepdims=True) / live.sum(axis=1, keepdims=True), NEVER)


def _log_odds(held: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the classes; half a row more on either side keeps that of a class that all or none have finite."""
    return (held > 0) & (held < total), np.log((held + 0.5) / (total - held + 0.5))


PRIORS = {"softmax": _log_shares, "sigmoid": _log_odds}


@dataclass(frozen=True, eq=False)
class Fold:
    """Standardising by mask, moved into the weights: mean, inverse scale (M, D), live, prior (M, k), on the device."""

    backend: Backend
    mean: Any
    inverse: Any
    live: Any
    prior: Any

    @classmethod
    def of(cls, scalers: Scalers, live: np.ndarray, prior: np.ndarray, backend: Backend) -> "Fold":
        """Bring scalers to the device; features with a scale of inf get weight 0."""
        array = backend.array
        return cls(backend, array(scalers.mean), array(1 / scalers.scale), array(live, "bool"), array(prior))

    def folded(self, W: Any, b: Any, mask: np.ndarray, dtype: str) -> Folded:
        """Turn weights (A, k, D) and biases (A, k) for standardised rows into those for rows as they are."""
        cast, xp = self.backend.cast, self.backend.xp
        V = cast(W * self.inverse[mask][:, None, :], dtype)
        # From the weights as rounded, so that the mean of a feature cancels to the last digit.
        bias = b - xp.sum(cast(V, "float64") * self.mean[mask][:, None, :], axis=2)
        return Folded(V, cast(xp.where(self.live[mask], bias, self.prior[mask]), dtype), mask)

    def gradient(self, G: Any, g: Any, mask: np.ndarray) -> tuple[Any, Any]:
        """Turn gradients by weights and biases for rows as they are into those for standardised rows."""
        G = (G - g[:, :, None] * self.mean[mask][:, None, :]) * self.inverse[mask][:, None, :]
        return G * self.live[mask][:, :, None], g * self.live[mask]


@dataclass(frozen=True, eq=False)
class Objective:
    """The objective of the problems `numbers` (A,) in one precision, by coordinates u (A, k D + k): weights, biases."""

    passes: Passes
    problems: Problems
    numbers: np.ndarray
    applied: Applied
    fold: Fold
    dtype: str

    def __call__(self, u: Any, which: np.ndarray) -> tuple[np.ndarray, Any, np.ndarray]:
        """Return mean losses with penalties (A,), their gradients by u, and the largest entries of those by weights."""
        backend, numbers = self.passes.backend, self.numbers[which]
        xp, mask = backend.xp, self.problems.mask[numbers]
        W, b = self.weights(u, which)
        value, G, g = self.passes.run(self.fold.folded(W, b, mask, self.dtype), self.dtype)
        share, ridge = backend.array(1 / self.problems.total[mask]), backend.array(self.problems.ridge[numbers])
        G, g = self.fold.gradient(G * share[:, None, None], g * share[:, None], mask)
        G += ridge[:, None, None] * W
        size = xp.maximum(xp.amax(xp.abs(G), axis=(1, 2)), xp.amax(xp.abs(g), axis=1))
        value = value * share + ridge / 2 * xp.sum(W * W, axis=(1, 2))
        return backend.host(value), self._by_u(G, g, numbers), backend.host(size)

    def weights(self, u: Any, which: np.ndarray) -> tuple[Any, Any]:
        """Return weights (A, k, D) and biases (A, k) at coordinates, float64."""
        cast, k = self.passes.backend.cast, self.problems.live.shape[1]
        U = cast(u[:, :-k], self.dtype).reshape(len(which), k, -1)
        return cast(self.applied.weights(U, self.numbers[which]), "float64"), u[:, -k:] * self._unit()

    def coordinates_of(self, W: np.ndarray, b: np.ndarray) -> Any:
        """Return the coordinates (A, k D + k) of weights (A, k, D) and biases (A, k) of the host."""
        U = self.applied.coordinates.of_weights(W, self.numbers)
        return self.passes.backend.array(np.concatenate([U.reshape(len(W), -1), b / self._unit()], axis=1))

    def _by_u(self, G: Any, g: Any, numbers: np.ndarray) -> Any:
        cast = self.passes.backend.cast
        by_u = cast(self.applied.gradient(cast(G, self.dtype), numbers), "float64")
        return self.passes.backend.xp.concatenate((by_u.reshape(len(numbers), -1), g * self._unit()), axis=1)

    def _unit(self) -> float:
        """A bias has the curvature of a feature of variance 1, and no ridge."""
        return self.applied.coordinates.curvature**-0.5
