"""What fitting many logistic regressions gives: a linear head each, and scores of the rows it was not fitted on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from classify.probe.backend import Backend, open_backend
from classify.probe.linear import Linear
from classify.probe.moments import Scalers
from classify.probe.objective import Fold
from classify.probe.passes import NEVER, cut
from classify.probe.path import code_type
from classify.probe.precondition import Factors
from classify.probe.rows import Rows
from classify.scoring import absent_last

NEAR = 2
"""Solutions to either side of a C that its own is estimated from."""
BY_PROBLEM = ("coef", "intercept", "converged", "n_iter", "grad", "objective", "in_float64")


@dataclass(frozen=True, eq=False)
class Solutions:
    """P solved problems, in the order asked for: (mask, C), and coef (P, k, D), intercept (P, k) for standardised rows.

    By mask: the training rows (M, n), the scalers, and `live` (M, k), which is false for classes without anything to
    learn: they have weights 0, and under "softmax" an intercept of -inf. By problem (P,): whether the largest entry of
    the gradient of the mean loss, `grad`, came down to the tolerance, the steps taken, the objective as sklearn defines
    it, and whether float64 was needed.
    """

    problems: tuple[tuple[int, float], ...]
    masks: np.ndarray
    scalers: Scalers
    loss: str
    live: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray
    grad: np.ndarray
    objective: np.ndarray
    in_float64: np.ndarray
    factors: Factors | None = None

    def joined(self, others: "Solutions | None") -> "Solutions":
        """Return these and others, of the same masks, as one."""
        if others is None:
            return self
        both = {name: np.concatenate([getattr(self, name), getattr(others, name)]) for name in BY_PROBLEM}
        return replace(self, problems=self.problems + others.problems, **both)

    def between(self, mask: int, C: float) -> tuple[list[int], np.ndarray]:
        """Estimate the solution of a mask at another C: -> numbers of solutions (m,), and the weight (m,) of each.

        The polynomial in log C through NEAR solutions to either side (Lagrange's form); what lies beyond all of them
        is not guessed at, and is said to be the nearest.
        """
        known = sorted({each: p for p, (own, each) in enumerate(self.problems) if own == mask}.items())
        below, above = [at for at in known if at[0] < C][-NEAR:], [at for at in known if at[0] >= C][:NEAR]
        near = [*below, *above] if below and above else [*below[-1:], *above[:1]]
        x = np.log([each for each, _ in near])
        apart = x[:, None] - x + np.eye(len(x))
        ratios = np.where(np.eye(len(x), dtype=bool), 1.0, (np.log(C) - x) / apart)
        return [p for _, p in near], ratios.prod(axis=1)

    def linear(self, p: int) -> Linear:
        """Return one problem's head."""
        mask = self.problems[p][0]
        return Linear.of(self.scalers.mean[mask], self.scalers.scale[mask], self.coef[p], self.intercept[p])

    def fold(self, backend: Backend) -> Fold:
        """Prepare to score rows as they are."""
        return Fold.of(self.scalers, np.ones_like(self.live), np.zeros(self.live.shape), backend)


def predict_masked(
    rows: Rows, solutions: Solutions, outside: np.ndarray | None = None, device: str = "cpu"
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Score the rows that a problem was not fitted on: -> problem, positions (r,) of some rows, scores (r, k) float32.

    One pass over the rows for all problems; a chunk of scores exists at a time. `outside` (M, n) bool says which rows
    to score by mask, by default all that are not in it. A class that a mask lacks lies ABSENT below the lowest other.
    """
    outside = ~solutions.masks if outside is None else outside
    masks = np.array([mask for mask, _ in solutions.problems])
    with open_backend(device) as backend:
        array = backend.array
        finite = array(np.maximum(solutions.intercept, NEVER))
        folded = solutions.fold(backend).folded(array(solutions.coef), finite, masks, "float32")
        for at, X in cut(backend, backend.blocks(rows), solutions.intercept.size):
            S = backend.host(folded.logits(backend.cast(X, "float32")))
            for p, mask in enumerate(masks):
                here = np.flatnonzero(outside[mask, at])
                if len(here):
                    yield p, here + at.start, _without_absent(S[p][:, here].T, solutions.intercept[p])


def out_of_fold_codes(
    rows: Rows, solutions: Solutions, outside: np.ndarray | None = None, device: str = "cpu"
) -> dict[float, np.ndarray]:
    """Predict each row for every C by the problem that was not fitted on it: -> C: (n,) codes, -1 where there is none.

    Holds no scores. A row that two masks of one C leave out gets the prediction of the later.
    """
    kind = code_type(solutions.intercept.shape[1])
    codes = {C: np.full(rows.shape[0], -1, kind) for _, C in solutions.problems}
    for p, at, found in predict_masked(rows, solutions, outside, device):
        codes[solutions.problems[p][1]][at] = found.argmax(axis=1)
    return codes


def _without_absent(scores: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Let classes with an intercept of -inf lose: (r, k) -> (r, k)."""
    scores[:, np.isneginf(intercept)] = -np.inf
    return absent_last(scores)
