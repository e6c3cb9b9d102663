"""One pass over the rows for all problems: values and gradients of their losses, or their scores.

The features stay as they are: what standardises them for one mask is folded into the weights of its problems, so that a
block of rows meets all problems in one matrix product for the logits and one for the gradients. Rows outside of a mask
have weight 0, and those in memory are sorted so that most of these zeros are left out. Only a chunk of logits exists at
a time, and sums over chunks are in float64.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from typing import Any

import numpy as np

from classify.probe.backend import Backend, Blocks
from classify.probe.rows import Rows, array_rows, in_memory

NEVER = -1e30
"""The logit of a class that a mask lacks: finite, so that 0 times it is 0, and its exponential is 0."""
MIN_CHUNK_ROWS = 256
"""Fewer make a matrix product slow."""


@dataclass(frozen=True, eq=False)
class Folded:
    """Weights (P, k, D) and biases (P, k) for rows as they are, of one type on the device; masks (P,) of problems."""

    weights: Any
    bias: Any
    masks: np.ndarray

    def some(self, on: np.ndarray) -> "Folded":
        """Return those of some problems, by their numbers."""
        return self if len(on) == len(self.masks) else Folded(self.weights[on], self.bias[on], self.masks[on])

    def logits(self, X: Any) -> Any:
        """Score rows: (r, D) -> (P, k, r)."""
        P, k, dims = self.weights.shape
        flat = self.weights.reshape(P * k, dims) @ X.T
        flat += self.bias.reshape(P * k, 1)
        return flat.reshape(P, k, X.shape[0])


@dataclass(frozen=True, eq=False)
class Passes:
    """The rows, their targets and weights on the device: `y` (n,) int64 or (k, n) float32, `weight` (M, n) float32.

    `used` (M, n) bool, on the host, tells which rows a mask gives weight; `edges` are positions at which that changes,
    where rows have been brought into the order of it.
    """

    backend: Backend
    blocks: Blocks
    y: Any
    weight: Any
    used: np.ndarray
    edges: np.ndarray
    loss: str

    @classmethod
    def of(cls, backend: Backend, rows: Rows, y: np.ndarray, weight: np.ndarray, loss: str) -> "Passes":
        """Bring rows, codes y (n,) or 0 and 1 (n, k), and weights (M, n) to the device; rows in memory are ordered."""
        order, edges = _alike(weight > 0)
        if in_memory(rows) and len(edges):
            rows, y, weight = array_rows(rows.take(order)), y[order], weight[:, order]
        else:
            edges = edges[:0]
        target = backend.array(y, "int64") if y.ndim == 1 else backend.array(y.T, "float32")
        on_device = backend.array(weight, "float32")
        return cls(backend, backend.blocks(rows), target, on_device, weight > 0, edges, loss)

    def run(self, folded: Folded, dtype: str) -> tuple[Any, Any, Any]:
        """Sum over all rows: values (P,), gradients by weights (P, k, D) and biases (P, k), float64 on the device."""
        P, k, dims = folded.weights.shape
        work = partial(self._chunk, folded, dtype)
        totals = tuple(self.backend.zeros(shape) for shape in ((P,), (P, k, dims), (P, k)))
        met = np.any(self.used[np.unique(folded.masks)], axis=0)
        chunks = (each for each in cut(self.backend, self.blocks, P * k, self.edges) if met[each[0]].any())
        while few := list(islice(chunks, 2 * self.backend.width)):
            for on, parts in self.backend.map(work, few):
                for total, part in zip(totals, parts, strict=True):
                    _add(total, on, part)
        return totals

    def _chunk(self, folded: Folded, dtype: str, chunk: tuple[slice, Any]) -> tuple[np.ndarray, tuple[Any, ...]]:
        """Sum over a chunk for the problems that give any of its rows weight: -> their numbers (A,), and the sums."""
        at, X = chunk[0], self.backend.cast(chunk[1], dtype)
        on = np.flatnonzero(np.any(self.used[:, at], axis=1)[folded.masks])
        folded = folded.some(on)
        S = folded.logits(X)
        weight = self.weight[:, at][self.backend.array(folded.masks, "int64")]
        value = LOSSES[self.loss](self.backend.xp, S, self.y[..., at], weight)
        G = S.reshape(-1, X.shape[0]) @ X
        return on, (value, G.reshape(folded.weights.shape), self.backend.xp.sum(S, axis=2))


def _add(total: Any, on: np.ndarray, part: Any) -> None:
    """Add a part (A, ...) to the problems `on` (A,) of a total (P, ...), which slices do without a copy."""
    for start, stop in _runs(on):
        total[on[start] : on[stop - 1] + 1] += part[start:stop]


def _runs(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Part ascending numbers where one is left out: -> positions from and to."""
    bounds = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(numbers)]
    return list(pairwise(bounds))


def _alike(used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order rows so that those which the same masks use stand together: (M, n) bool -> order (n,), and where that ends.

    Of five folds each leaves a fifth of the rows out, and of the parts of a learning curve most leave out most: what a
    problem gives no weight need not be multiplied. No ends where stretches would be too short to be worth it.
    """
    packed = np.packbits(used, axis=0)
    order = np.lexsort(packed)
    packed = packed[:, order]
    edges = np.flatnonzero((packed[:, 1:] != packed[:, :-1]).any(axis=0)) + 1
    return order, edges if (len(edges) + 1) * MIN_CHUNK_ROWS <= used.shape[1] else edges[:0]


def cut(backend: Backend, blocks: Blocks, columns: int, edges: np.ndarray | tuple = ()) -> Iterator[tuple[slice, Any]]:
    """Cut blocks into chunks alike for all cores, and of no more rows than make a piece of work with so many logits.

    5,000 rows of 100 logits each are one piece of work; taken as one they would leave all cores but one idle. No chunk
    goes across one of the `edges`.
    """
    most = max(MIN_CHUNK_ROWS, backend.chunk // columns)
    for at, block in blocks():
        inside = [edge for edge in edges if at.start < edge < at.stop]
        for start, stop in pairwise([at.start, *inside, at.stop]):
            shares = backend.width * -(-(stop - start) // (backend.width * most))
            step = max(MIN_CHUNK_ROWS, -(-(stop - start) // shares))
            for here in range(start, stop, step):
                end = min(here + step, stop)
                yield slice(here, end), block[here - at.start : end - at.start]


def _softmax(xp: Any, S: Any, y: Any, w: Any) -> Any:
    """Cross-entropy: logits S (P, k, r), which become its gradient, codes y (r,), weights w (P, r) -> values (P,)."""
    every = xp.arange(S.shape[2])
    S -= xp.amax(S, axis=1, keepdims=True)
    own = S[:, y, every]
    xp.exp(S, out=S)
    total = xp.sum(S, axis=1)
    value = xp.sum((xp.log(total) - own) * w, axis=1, dtype=xp.float64)
    S *= (w / total)[:, None, :]
    S[:, y, every] -= w
    return value


def _sigmoid(xp: Any, S: Any, y: Any, w: Any) -> Any:
    """Binary cross-entropy of each class, as `_softmax`; y (k, r). log(1 + e^s) as max(s, 0) + log(1 + e^-|s|)."""
    small = xp.exp(-xp.abs(S))
    value = xp.sum((S.clip(0) - S * y + xp.log1p(small)) * w[:, None, :], axis=(1, 2), dtype=xp.float64)
    S[:] = (xp.where(S >= 0, 1, small) / (1 + small) - y) * w[:, None, :]
    return value


LOSSES: dict[str, Callable[[Any, Any, Any, Any], Any]] = {"softmax": _softmax, "sigmoid": _sigmoid}
"""By name: logits (P, k, r) on the device, targets, weights (P, r) -> values (P,); the logits become the gradient."""
