"""Whether the formulas of a bundle score as scikit-learn does: compared before it is written."""

import numpy as np

from classify.scoring import Arrays, nearness, unit
from extract.errors import FitError

PARITY = 1e-6
"""Of the largest score, or of 1: what scores may differ by."""
TIE = 1e-6
MOST_ROWS = 1000


def spread(n: int) -> np.ndarray:
    """Choose the rows to compare, spread over all n: -> row numbers, a thousand at most."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_ROWS)).astype(int))


def untied(arrays: Arrays, X: np.ndarray) -> np.ndarray:
    """Tell whose k-th neighbour is nearer than the next, the others' votes being a matter of order: (n, D) -> (n,)."""
    rows, k = unit(arrays["rows"].astype(np.float64)), int(arrays["k"])
    near = np.sort(nearness(rows, X), axis=1)[:, ::-1]
    return near[:, k - 1] - near[:, k] > TIE if k < near.shape[1] else np.ones(len(X), dtype=bool)


def differs(scores: np.ndarray, expected: np.ndarray) -> float:
    """Return by how much scores (n, C) differ where that is more than rounding, else 0; NaN differs by infinity."""
    gap = float(np.abs(scores - expected).max(initial=0))
    if gap <= PARITY * max(1.0, float(np.abs(expected).max(initial=0))):
        return 0.0
    return gap if np.isfinite(gap) else np.inf


def check_parity(scores: np.ndarray, expected: np.ndarray, head: str) -> None:
    """Raise FitError where the scores (n, C) are not the `expected` ones."""
    if gap := differs(scores, expected):
        raise FitError(f"the bundle's scores differ from the fitted {head}'s by {gap:.2g}", remedy="Report this bug")
