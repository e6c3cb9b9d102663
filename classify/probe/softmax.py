"""Logistic regression for many training sets and penalties at once, as scikit-learn defines it.

The objective of one problem is LogisticRegression's: sum over its rows of weight x cross-entropy + |W|^2 / (2 C), on
features standardised by its own rows, the intercept free. A problem counts as solved where the largest entry of the
gradient of the mean loss is at most `tol`, as sklearn has it. Two classes are two columns -w/2 and w/2 with C/2: the
same objective. Products are in float32 with sums in float64; what float32 cannot bring to `tol` goes on in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from classify.probe.backend import Backend, open_backend
from classify.probe.lbfgs import PAIRS, Limits, minimise
from classify.probe.moments import Scalers, mean_std
from classify.probe.objective import Asked, Fold, Objective, Problems, lay_out
from classify.probe.passes import NEVER, Passes
from classify.probe.precondition import Coordinates, Factors
from classify.probe.rows import Rows
from classify.probe.solutions import Solutions
from extract.progress import Progress, Silent

BATCH_BYTES = 2 << 30
"""What L-BFGS may hold at a time; problems beyond that wait for their turn."""
WORK_VECTORS = 12
"""Vectors of float64 that a step of L-BFGS holds beside its memory."""
SMALLEST_TOL = 2e-7
"""Below this `gap` asks for nothing: at so weak a penalty scores hardly depend on it."""
FLOAT32_TOL = 1e-6
"""Gradients in float32 are rounding below this."""
CURVATURE = {"softmax": lambda k: 1 / k, "sigmoid": lambda k: 1 / 4}
"""By loss, how its Hessian compares with Z'Z at weights of 0 (see `precondition`)."""


@dataclass(frozen=True)
class Ends:
    """When a problem is done: its gradient is at most `tol`, or what `gap` asks for; or after `max_iter` steps.

    `gap` is a part of the mean loss, see `tolerances`. The steps are of either precision.
    """

    tol: float = 1e-4
    gap: float | None = None
    max_iter: int = 1000

    def tolerances(self, ridge: np.ndarray) -> np.ndarray:
        """Return the tolerance of each problem: `tol`, or less where the ridge (P,) is small, and with it the gradient.

        The loss is strongly convex by the ridge, so it lies no more than |g|^2 / (2 ridge) above its minimum: at most
        about `gap` where the gradient is within the root of 2 ridge gap.
        """
        if self.gap is None:
            return np.full(len(ridge), self.tol)
        return np.clip(np.sqrt(2 * ridge * self.gap), min(self.tol, SMALLEST_TOL), self.tol)


def fit_softmax(
    asked: Asked,
    problems: Sequence[tuple[int, float]],
    ends: Ends = Ends(),
    *,
    start: Solutions | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Solutions:
    """Fit (mask, C) problems. `start` holds solutions for the same rows and masks: problems set out from the nearest C.

    Those that end without reaching their tolerance are kept, and say so. Raises FitError for a mask without rows, and
    for features that are no numbers.
    """
    unit = spread_of(asked.rows, asked.scalers)
    scaled = replace(asked, scalers=Scalers(asked.scalers.mean, asked.scalers.scale * unit), unit=unit)
    watch = progress or Silent()
    watch.start("fitting", len(problems))
    with open_backend(device) as backend:
        laid = lay_out(scaled, problems)
        known = start.factors if start else None
        factors = known or Factors(scaled.rows, scaled.scalers, CURVATURE[scaled.loss](scaled.n_classes))
        solver = _Solver.of(scaled, laid, Limits(ends.tolerances(laid.ridge), ends.max_iter), factors, backend, watch)
        parts = [solver.solve(numbers, *solver.start(numbers, start)) for numbers in _batches(scaled, len(problems))]
        solved = _gather(replace(scaled, scalers=asked.scalers), laid, problems, parts, np.asarray(solver.limits.tol))
        return replace(solved, factors=factors)


def spread_of(rows: Rows, scalers: Scalers) -> float:
    """Return the root of the mean variance of features that no scaler divides; 1 where they are standardised.

    Of rows of length 1 with a thousand features it is some hundredths, and a gradient by their weights is as small.
    """
    if not (scalers.scale == 1).all():
        return 1.0
    std = mean_std(rows, np.ones((1, rows.shape[0]), bool))[1]
    spread = float(np.sqrt((std**2).mean()))
    return spread if 0 < spread < np.inf else 1.0


@dataclass(frozen=True, eq=False)
class _Part:
    """Some problems solved, on the host: coef (A, k, D), intercept (A, k); the rest (A,)."""

    coef: np.ndarray
    intercept: np.ndarray
    value: np.ndarray
    size: np.ndarray
    n_iter: np.ndarray
    in_float64: np.ndarray


@dataclass(frozen=True, eq=False)
class _Solver:
    """What it takes to solve problems of one call."""

    problems: Problems
    limits: Limits
    passes: Passes
    fold: Fold
    coordinates: Coordinates
    watch: Progress
    unit: float

    @classmethod
    def of(
        cls, asked: Asked, problems: Problems, limits: Limits, factors: Factors, backend: Backend, watch: Progress
    ) -> "_Solver":
        coordinates = factors.coordinates(problems.ridge, asked.n_classes * len(problems.order), backend)
        weight = asked.masks * asked.counts().astype(np.float32)
        passes = Passes.of(backend, asked.rows, asked.y, weight, asked.loss)
        fold = Fold.of(asked.scalers, problems.live, problems.prior, backend)
        return cls(problems, limits, passes, fold, coordinates, watch, asked.unit)

    def start(self, numbers: np.ndarray, solved: Solutions | None) -> tuple[np.ndarray, np.ndarray]:
        """Return weights (A, k, D) and biases (A, k) to set out from: what `solved` leads to, or 0 and the prior."""
        mask, live = self.problems.mask[numbers], self.problems.live[self.problems.mask[numbers]]
        W = np.zeros((*live.shape, self.fold.mean.shape[1]))
        b = np.where(live, self.problems.prior[mask], 0.0)
        if solved is None:
            return W, b
        for at, number in enumerate(numbers):
            near, share = solved.between(int(mask[at]), float(self.problems.C[number]))
            if near:
                W[at] = np.tensordot(share, solved.coef[near], 1) * self.unit
                b[at] = share @ np.where(live[at], solved.intercept[near], 0.0)
        return W, b

    def solve(self, numbers: np.ndarray, W: np.ndarray, b: np.ndarray) -> _Part:
        """Solve some of the problems from these weights and biases, in float32, and what is left in float64."""
        backend, watch, every = self.passes.backend, self.watch, np.arange(len(numbers))
        tol = np.asarray(self.limits.tol)[numbers]
        fast, exact = (self._objective(numbers, dtype) for dtype in ("float32", "float64"))
        first = replace(self.limits, tol=np.maximum(tol, FLOAT32_TOL), dtype="float32")
        found = minimise(fast, exact.coordinates_of(W, b), first, backend)
        left = np.flatnonzero((found.size > tol) & (found.n_iter < self.limits.max_iter))
        watch.advance(len(numbers) - len(left))
        if len(left):
            second = self._objective(numbers[left], "float64")
            found.put(left, minimise(second, found.point[left], replace(self.limits, tol=tol[left]), backend))
            watch.advance(len(left))
        coef, intercept = map(backend.host, exact.weights(found.point, every))
        return _Part(coef, intercept, found.value, found.size, found.n_iter, np.isin(every, left))

    def _objective(self, numbers: np.ndarray, dtype: str) -> Objective:
        applied = self.coordinates.on(self.passes.backend, dtype)
        return Objective(self.passes, self.problems, numbers, applied, self.fold, dtype)


def _batches(asked: Asked, n: int) -> list[np.ndarray]:
    """Cut n problems, sorted, into runs that L-BFGS has the memory for; as many as there are, where it has."""
    each = (asked.rows.shape[1] + 1) * asked.n_classes * 8 * (2 * PAIRS + WORK_VECTORS)
    return np.array_split(np.arange(n), -(-n * each // BATCH_BYTES))


def _gather(
    asked: Asked, laid: Problems, problems: Sequence[tuple[int, float]], parts: list[_Part], tol: np.ndarray
) -> Solutions:
    """Put solutions into the order asked for, with sums over classes exactly 0 and objectives of sums."""
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _Part.__dataclass_fields__}
    back = np.argsort(laid.order, kind="stable")
    live = laid.live[laid.mask]
    coef, intercept = joined["coef"] / asked.unit, joined["intercept"]
    if asked.loss == "softmax":
        coef, intercept = (_centred(each, live) for each in (coef, intercept))
    free = np.where(laid.prior == NEVER, -np.inf, laid.prior)[laid.mask]
    return Solutions(
        tuple(problems),
        asked.masks,
        asked.scalers,
        asked.loss,
        laid.live,
        coef[back],
        np.where(live, intercept, free)[back],
        (joined["size"] <= tol)[back],
        joined["n_iter"][back],
        joined["size"][back],
        (joined["value"] * laid.total[laid.mask])[back],
        joined["in_float64"][back],
    )


def _centred(values: np.ndarray, live: np.ndarray) -> np.ndarray:
    """Take the mean over live classes off: (P, k) or (P, k, D); at the optimum it is 0 but for rounding."""
    live = live.reshape(*live.shape, *[1] * (values.ndim - 2))
    mean = (values * live).sum(axis=1, keepdims=True) / live.sum(axis=1, keepdims=True)
    return (values - mean) * live
