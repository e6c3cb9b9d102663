"""L-BFGS on many problems at once: each evaluation serves all of them, and each leaves when it is done.

Every problem has its own step: a trial that its line search accepts becomes its next point, another is tried again with
a shorter step in the next evaluation, which the others use to go on. The two loops of Nocedal (1980) run on the
products of the remembered vectors instead of the vectors (Chen, Wang and Zhou 2014, "vector-free"), so that a direction
costs two passes over the memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from classify.probe.backend import Backend
from extract.errors import FitError

PAIRS = 10
"""Steps remembered, as scipy does by default; more did not save evaluations."""
ARMIJO = 1e-4
MAX_TRIES = 12
PATIENCE = 6
"""Steps in a row that gain nothing above rounding before a problem counts as stalled."""

Evaluate = Callable[[Any, np.ndarray], tuple[np.ndarray, Any, np.ndarray]]
"""Points (A, N) float64 on the device, of which problems (A,): -> values (A,), gradients (A, N) on the device, and what
is compared with the tolerance (A,)."""


@dataclass(frozen=True)
class Limits:
    """When a problem is done: its size is at most `tol`, one for all or (P,), or after `max_iter` steps.

    `dtype` is that of the evaluation.
    """

    tol: float | np.ndarray
    max_iter: int
    dtype: str = "float64"

    @property
    def noise(self) -> float:
        """Relative error of a value."""
        return 4 * float(np.finfo(self.dtype).eps)


@dataclass(frozen=True)
class Minima:
    """Where P problems ended: points (P, N) float64 on the device; the rest (P,): values, sizes, steps taken."""

    point: Any
    value: np.ndarray
    size: np.ndarray
    n_iter: np.ndarray

    def put(self, at: np.ndarray, other: "Minima") -> None:
        """Replace the problems `at`, their steps added up."""
        self.point[at], self.value[at], self.size[at] = other.point, other.value, other.size
        self.n_iter[at] += other.n_iter


def minimise(evaluate: Evaluate, start: Any, limits: Limits, backend: Backend) -> Minima:
    """Minimise P smooth convex functions from `start` (P, N); raises FitError where a value there is no number."""
    batch = _Batch.at(evaluate, start, limits, backend)
    n = len(start)
    found = Minima(backend.zeros(tuple(start.shape)), np.zeros(n), np.zeros(n), np.zeros(n, np.int64))
    while len(batch.which):
        ended = batch.ended()
        if ended.any():
            batch.leave(ended, found)
        if len(batch.which):
            batch.advance(evaluate)
    return found


@dataclass
class _Batch:
    """The problems that go on: arrays on the device first, then what is known of each (A,), in NumPy."""

    limits: Limits
    backend: Backend
    point: Any
    gradient: Any
    memory: "_Memory"
    which: np.ndarray
    tol: np.ndarray
    value: np.ndarray
    size: np.ndarray
    step: np.ndarray
    tries: np.ndarray
    n_iter: np.ndarray
    idle: np.ndarray

    @classmethod
    def at(cls, evaluate: Evaluate, start: Any, limits: Limits, backend: Backend) -> "_Batch":
        n, dims = start.shape
        value, gradient, size = evaluate(start, np.arange(n))
        if not np.isfinite(value).all():
            raise FitError("the features hold what is no number", remedy="Leave such rows out, or extract them again")
        memory = _Memory.of(n, dims, limits.dtype, backend)
        zeros, tol = [np.zeros(n, np.int64) for _ in range(3)], np.broadcast_to(limits.tol, n)
        return cls(limits, backend, start, gradient, memory, np.arange(n), tol, value, size, np.ones(n), *zeros)

    def ended(self) -> np.ndarray:
        """Tell which problems need no further evaluation: (A,) bool."""
        stalled = (self.tries >= MAX_TRIES) | (self.idle >= PATIENCE)
        return (self.size <= self.tol) | (self.n_iter >= self.limits.max_iter) | stalled

    def leave(self, ended: np.ndarray, found: Minima) -> None:
        """Hand over the problems that have ended, and close the ranks."""
        number, at = self.which[ended], np.flatnonzero(ended)
        found.point[number] = self.point[at]
        found.value[number], found.size[number] = self.value[at], self.size[at]
        found.n_iter[number] = self.n_iter[at]
        keep = np.flatnonzero(~ended)
        for name in ("point", "gradient", "which", "tol", "value", "size", "step", "tries", "n_iter", "idle"):
            setattr(self, name, getattr(self, name)[keep])
        self.memory.keep(keep)

    def advance(self, evaluate: Evaluate) -> None:
        """Evaluate a trial point of each problem, and accept it or shorten its step."""
        direction = self.memory.direction(self.gradient)
        slope = self._dot(direction, self.gradient)
        move = direction * self.backend.array(self.step)[:, None]
        value, gradient, size = evaluate(self.point + move, self.which)
        rise = value - self.value
        steep = self._dot(direction, gradient)
        accepted = self._accepts(rise, slope, steep)
        self.memory.learn(np.flatnonzero(accepted), move, gradient - self.gradient)
        self._note(accepted, rise, slope, size)
        taken = self.backend.array(accepted, "bool")[:, None]
        self.point = self.backend.xp.where(taken, self.point + move, self.point)
        self.gradient = self.backend.xp.where(taken, gradient, self.gradient)
        self.value, self.size = np.where(accepted, value, self.value), np.where(accepted, size, self.size)

    def _dot(self, a: Any, b: Any) -> np.ndarray:
        return self.backend.host(self.backend.xp.sum(a * b, axis=1))

    def _accepts(self, rise: np.ndarray, slope: np.ndarray, steep: np.ndarray) -> np.ndarray:
        """Armijo's condition, or, where values differ by rounding only, a flatter slope (Hager and Zhang 2005)."""
        level = rise <= self.limits.noise * np.abs(self.value)
        return (rise <= ARMIJO * self.step * slope) | (level & (np.abs(steep) <= 0.9 * np.abs(slope)))

    def _note(self, accepted: np.ndarray, rise: np.ndarray, slope: np.ndarray, size: np.ndarray) -> None:
        """Count steps and tries; a step that failed is cut to the minimum of a parabola, to a tenth at least."""
        bend = rise - slope * self.step
        cut = np.divide(-slope * self.step, 2 * bend, out=np.full_like(bend, 0.1), where=np.isfinite(bend) & (bend > 0))
        self.step = np.where(accepted, 1.0, self.step * np.clip(cut, 0.1, 0.5))
        self.tries = np.where(accepted, 0, self.tries + 1)
        self.n_iter = self.n_iter + accepted
        gained = (-rise > self.limits.noise * np.abs(self.value)) | (size < 0.9 * self.size)
        self.idle = np.where(accepted, np.where(gained, 0, self.idle + 1), self.idle)


@dataclass
class _Memory:
    """The last steps of each problem and how the gradient changed on them: `basis` (A, 2 PAIRS, N), steps first.

    `products` (A, 2 PAIRS, 2 PAIRS) float64 are those of the basis; `slot` (A,) is where the next pair goes, over the
    oldest. Zeros stand for pairs that are not there yet: they have no curvature, and change nothing.
    """

    backend: Backend
    dtype: str
    basis: Any
    products: np.ndarray
    slot: np.ndarray

    @classmethod
    def of(cls, n: int, dims: int, dtype: str, backend: Backend) -> "_Memory":
        basis = backend.zeros((n, 2 * PAIRS, dims), dtype)
        return cls(backend, dtype, basis, np.zeros((n, 2 * PAIRS, 2 * PAIRS)), np.zeros(n, np.int64))

    def keep(self, at: np.ndarray) -> None:
        """Forget all problems but these."""
        self.basis, self.products, self.slot = self.basis[at], self.products[at], self.slot[at]

    def learn(self, at: np.ndarray, step: Any, change: Any) -> None:
        """Remember one more pair of the problems `at`, of (A, N) each, unless rounding left it no curvature."""
        xp, cast = self.backend.xp, self.backend.cast
        curvature, length = (self.backend.host(xp.sum(a * change, axis=1)) for a in (step, change))
        at = at[curvature[at] > np.finfo(self.dtype).eps * length[at]]
        slot = self.slot[at]
        pair = xp.stack((cast(step, self.dtype), cast(change, self.dtype)))
        for place, vectors in ((slot, pair[0]), (slot + PAIRS, pair[1])):
            self.basis[at, place] = vectors[at]
        for place, vectors in ((slot, pair[0]), (slot + PAIRS, pair[1])):
            self.products[at, place] = self.products[at, :, place] = self._against(vectors)[at]
        self.slot[at] = (slot + 1) % PAIRS

    def direction(self, gradient: Any) -> Any:
        """Return where to go: (A, N) -> -H (A, N), H being the estimate of the inverse Hessian."""
        gradient_ = self.backend.cast(gradient, self.dtype)
        weights, own = self._loops(self._against(gradient_))
        found = self.backend.xp.matmul(self.backend.array(weights, self.dtype)[:, None, :], self.basis)[:, 0]
        return -(found + self.backend.array(own)[:, None] * gradient)

    def _against(self, vectors: Any) -> np.ndarray:
        """Multiply the basis with one vector of each problem: (A, N) -> (A, 2 PAIRS) float64."""
        return self.backend.host(self.backend.xp.matmul(self.basis, vectors[:, :, None])[:, :, 0]).astype(np.float64)

    def _loops(self, against: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run Nocedal's two loops: products of the basis with g (A, 2 PAIRS) -> H g as weights of the basis, and of g.

        With q = basis' c + e g, every product that the loops ask for is `products` c + e `against`.
        """
        A, each = len(against), np.arange(len(against))
        weights, own, alpha = np.zeros((A, 2 * PAIRS)), np.ones(A), np.zeros((A, PAIRS))
        newest_first = [(self.slot - 1 - back) % PAIRS for back in range(PAIRS)]
        inverse = {back: self._inverse_curvature(each, s) for back, s in enumerate(newest_first)}
        for back, s in enumerate(newest_first):
            product = np.einsum("ij,ij->i", self.products[each, s], weights) + against[each, s]
            alpha[:, back] = inverse[back] * product
            weights[each, s + PAIRS] -= alpha[:, back]
        own = self._scale(each, newest_first[0])
        weights *= own[:, None]
        for back, s in reversed(list(enumerate(newest_first))):
            product = np.einsum("ij,ij->i", self.products[each, s + PAIRS], weights) + own * against[each, s + PAIRS]
            weights[each, s] += alpha[:, back] - inverse[back] * product
        return weights, own

    def _inverse_curvature(self, each: np.ndarray, s: np.ndarray) -> np.ndarray:
        curvature = self.products[each, s, s + PAIRS]
        return np.divide(1.0, curvature, out=np.zeros_like(curvature), where=curvature > 0)

    def _scale(self, each: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Estimate the inverse Hessian by a multiple of one: s'y / y'y of the newest pair, 1 before there is any."""
        curvature, length = self.products[each, s, s + PAIRS], self.products[each, s + PAIRS, s + PAIRS]
        return np.divide(curvature, length, out=np.ones_like(length), where=length > 0)
