"""Scores of features that need no training: neighbours that agree, LogME, and the H-score.

They are printed and never decide: across many settings small changes flip which network such a score calls the best
(Agostinelli et al. 2022), and of all of them neighbours do best (Sorkhei et al. 2025). Everything is in float64.
"""

from dataclasses import dataclass

import numpy as np

from classify.hygiene.neighbours import to_unit
from classify.scoring import COSINE_TEMPERATURE
from extract.errors import FitError

BLOCK_ROWS = 512
FLOOR = 1e-12
"""Of the largest eigenvalue: directions of less are rounding."""
OCTAVES = np.arange(-24, 24.125, 0.125)
"""Strengths of the prior that LogME tries, as powers of 2 of the mean eigenvalue."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Rows X (n, D) as what is squared of them: eigenvalues `values` (r,) of X'X above rounding.

    `projected` (r, K) are the squared projections of each class, as 0 and 1, onto the left singular vectors, and `rest`
    (K,) is what of its square none of them explains; `counts` (K,) are the rows of each class.
    """

    values: np.ndarray
    projected: np.ndarray
    rest: np.ndarray
    counts: np.ndarray


def spectrum(X: np.ndarray, y: np.ndarray) -> Spectrum:
    """Decompose X (n, D) float64 by the smaller of its two products; y (n,) codes. FitError where X is all zero."""
    codes, counts = np.unique(y, return_inverse=True, return_counts=True)[1:]
    targets = np.zeros((len(y), len(counts)))
    targets[np.arange(len(y)), codes] = 1
    wide = len(X) <= X.shape[1]
    values, vectors = np.linalg.eigh(X @ X.T if wide else X.T @ X)
    kept = values > FLOOR * max(values[-1], 0)
    if not kept.any():
        raise FitError("all images have the same features")
    values, vectors = values[kept], vectors[:, kept]
    onto = vectors.T @ targets if wide else vectors.T @ (X.T @ targets) / np.sqrt(values)[:, None]
    return Spectrum(values, onto**2, np.maximum(counts - (onto**2).sum(axis=0), 0), counts)


def logme(X: np.ndarray, y: np.ndarray) -> float:
    """Return the log evidence per row of a Bayesian linear regression on the classes: X (n, D), y (n,) codes.

    LogME (You et al. 2021, equation 2 and algorithm 1): the mean over the classes, each as 0 and 1 and with the best
    precisions alpha of the weights and beta of the noise. At a ratio t = alpha / beta the best beta is n / E with
    E = sum_i x_i t / (t + s_i) + rest, s being the eigenvalues and x the squared projections, so that one search for t
    is left, which cannot get stuck as their fixed point can: on a grid, and from there by a parabola. Whatever the
    features are multiplied with, it is the same.
    """
    found, n = spectrum(np.asarray(X, np.float64), y), len(y)
    ratios = found.values.mean() * 2**OCTAVES
    shrunk = ratios / (ratios + found.values[:, None])
    energy = found.rest[:, None] + found.projected.T @ shrunk
    evidence = (np.log(shrunk).sum(axis=0) / n - np.log(2 * np.pi * np.e * energy / n)) / 2
    return float(_peaks(evidence).mean())


def _peaks(curves: np.ndarray) -> np.ndarray:
    """Return the highest point of each row of an even grid, between its points by a parabola: (K, m) -> (K,)."""
    at, rows = curves.argmax(axis=1), np.arange(len(curves))
    highest = curves[rows, at]
    inner = np.clip(at, 1, curves.shape[1] - 2)
    before, here, after = (curves[rows, inner + step] for step in (-1, 0, 1))
    bend = before - 2 * here + after
    able = (at == inner) & (bend < 0)
    return np.where(able, highest - (after - before) ** 2 / np.where(able, 8 * bend, 1), highest)


def h_score(X: np.ndarray, y: np.ndarray) -> float:
    """Return how far apart the classes are, for how far apart images are: X (n, D), y (n,) codes -> 0 or more.

    The shrunk H-score (Ibrahim et al. 2022, equation 5): (1 - a) trace(S^-1 B), where B is the covariance of the
    classes' means, S that of the rows as Ledoit and Wolf 2004 shrink it, and a by how much. Covariances are over n.
    """
    X = np.asarray(X, np.float64)
    X = X - X.mean(axis=0)
    found, (n, dims) = spectrum(X, y), X.shape
    mean, squared = found.values.sum() / n / dims, (found.values**2).sum() / n**2
    spread = squared - dims * mean**2
    noise = ((np.einsum("ij,ij->i", X, X) ** 2).mean() - squared) / n
    share = min(noise, spread) / spread if spread > 0 else 0.0
    between = found.values * (found.projected / found.counts).sum(axis=1) / n
    return float((1 - share) * (between / ((1 - share) * found.values / n + share * mean)).sum())


def neighbours_say(X: np.ndarray, y: np.ndarray, groups: np.ndarray | None, k: int) -> tuple[np.ndarray, int]:
    """Let the k nearest images of other groups name each image: X (n, D), y, groups (n,) codes -> (n,) codes, k.

    By cosine, votes weighted as DINOv2 does (dinov2/eval/knn.py). Images of one group, duplicates among them, never
    vote for each other. k is cut to what the largest group leaves; FitError where that is none.
    """
    own = np.arange(len(y)) if groups is None else groups
    k = min(k, len(own) - int(np.unique(own, return_counts=True)[1].max()))
    if k < 1:
        raise FitError("all images are of one group")
    unit, said = to_unit(np.array(X, np.float32)), np.empty(len(y), np.int64)
    for start in range(0, len(y), BLOCK_ROWS):
        at = slice(start, start + BLOCK_ROWS)
        cosines = unit[at] @ unit.T
        cosines[own[at][:, None] == own] = -np.inf
        said[at] = _named(cosines, y, k)
    return said, k


def _named(cosines: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Add up the votes of the k nearest: cosines (m, n), y (n,) -> (m,) codes."""
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(cosines, nearest, axis=1).astype(np.float64)
    weights = np.exp((near - near.max(axis=1, keepdims=True)) / COSINE_TEMPERATURE)
    votes = np.zeros((len(cosines), int(y.max()) + 1))
    np.add.at(votes, (np.arange(len(cosines))[:, None], y[nearest]), weights)
    return votes.argmax(axis=1)
