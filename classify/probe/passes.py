"""One pass over the rows for all problems: values and gradients of their losses, or their scores.

The features stay as they are: what standardises them for one mask is folded into the weights of its problems, so that a
block of rows meets all problems in one matrix product for the logits and one for the gradients. Rows outside of a mask
have weight 0. Only a chunk of logits exists at a time, and sums over chunks are in float64.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from classify.probe.backend import Backend, Blocks

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

    def logits(self, X: Any) -> Any:
        """Score rows: (r, D) -> (P, k, r)."""
        P, k, dims = self.weights.shape
        flat = self.weights.reshape(P * k, dims) @ X.T
        flat += self.bias.reshape(P * k, 1)
        return flat.reshape(P, k, X.shape[0])


@dataclass(frozen=True, eq=False)
class Passes:
    """The rows, their targets and weights on the device: `y` (n,) int64 or (k, n) float32, `weight` (M, n) float32."""

    backend: Backend
    blocks: Blocks
    y: Any
    weight: Any
    loss: str

    def run(self, folded: Folded, dtype: str) -> tuple[Any, Any, Any]:
        """Sum over all rows: values (P,), gradients by weights (P, k, D) and biases (P, k), float64 on the device."""
        P, k, dims = folded.weights.shape
        work = partial(self._chunk, folded, self.backend.array(folded.masks, "int64"), dtype)
        value, G, g = (self.backend.zeros(shape) for shape in ((P,), (P * k, dims), (P * k,)))
        chunks = cut(self.backend, self.blocks, P * k)
        while few := list(islice(chunks, 2 * self.backend.width)):
            for part in self.backend.map(work, few):
                value += part[0]
                G += part[1]
                g += part[2]
        return value, G.reshape(P, k, dims), g.reshape(P, k)

    def _chunk(self, folded: Folded, masks: Any, dtype: str, chunk: tuple[slice, Any]) -> tuple[Any, Any, Any]:
        at, X = chunk[0], self.backend.cast(chunk[1], dtype)
        S = folded.logits(X)
        value = LOSSES[self.loss](self.backend.xp, S, self.y[..., at], self.weight[:, at][masks])
        R = S.reshape(-1, X.shape[0])
        return value, R @ X, self.backend.xp.sum(R, axis=1)


def cut(backend: Backend, blocks: Blocks, columns: int) -> Iterator[tuple[slice, Any]]:
    """Cut blocks into chunks alike for all cores, and of no more rows than make a piece of work with so many logits.

    5,000 rows of 100 logits each are one piece of work; taken as one they would leave all cores but one idle.
    """
    most = max(MIN_CHUNK_ROWS, backend.chunk // columns)
    for at, block in blocks():
        shares = backend.width * -(-len(block) // (backend.width * most))
        step = max(MIN_CHUNK_ROWS, -(-len(block) // shares))
        for start in range(0, len(block), step):
            stop = min(start + step, len(block))
            yield slice(at.start + start, at.start + stop), block[start:stop]


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
