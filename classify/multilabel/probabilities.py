"""Scores -> the probability of each class by itself: one temperature a class, fitted out of fold."""

import numpy as np
from scipy.special import expit

from classify.calibrate import at_bound, fit_temperature, reliability

FEWEST = 20
"""Rows with a class, and without it, below which its temperature is that of all classes together.

The temperature of a class that few rows have is at a bound by chance: when the few are all ranked on top, say.
"""


def probabilities(scores: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
    """Return sigmoid(score / temperature): (n, k), (k,) -> (n, k), each class by itself."""
    return expit(scores / temperatures)


def fit_temperatures(scores: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Find the temperature of lowest log-loss of each class: out-of-fold scores (n, k), Y (n, k) bool -> (k,).

    Within the bounds of `calibrate`; one common temperature for all classes with fewer than FEWEST rows on a side.
    """
    common = _temperature(scores.ravel(), Y.ravel())
    own = _has_its_own(Y)
    return np.array([_temperature(*each) if alone else common for *each, alone in zip(scores.T, Y.T, own, strict=True)])


def at_bounds(temperatures: np.ndarray, scores: np.ndarray, Y: np.ndarray) -> list[bool]:
    """Say of each class whether its temperature lies at a bound, by the scores (n, k) and Y (n, k) of the fit."""
    together = _as_two(scores.ravel())
    columns = zip(temperatures.tolist(), scores.T, _has_its_own(Y), strict=True)
    return [at_bound(found, _as_two(column) if alone else together) for found, column, alone in columns]


def _has_its_own(Y: np.ndarray) -> np.ndarray:
    """Say which classes have enough rows for a temperature of their own: (n, k) bool -> (k,) bool."""
    positives = Y.sum(axis=0)
    return np.minimum(positives, len(Y) - positives) >= FEWEST


def _temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """Fit one: (n,), (n,) bool."""
    return fit_temperature(_as_two(scores), y.astype(np.int64))


def _as_two(scores: np.ndarray) -> np.ndarray:
    """Write scores as those of two classes: (n,) -> (n, 2). The softmax of (-s/2, s/2) is the sigmoid of s."""
    return np.stack([-scores / 2, scores / 2], axis=1)


def log_losses(scores: np.ndarray, Y: np.ndarray, temperatures: np.ndarray) -> np.ndarray:
    """Mean log-loss of each row over the classes: (n, k), (n, k) bool, (k,) -> (n,) nats."""
    return np.logaddexp(0, np.where(Y, -scores, scores) / temperatures).mean(axis=1)


def classwise_ece(P: np.ndarray, Y: np.ndarray) -> float:
    """Calibration error of each class's probability in 15 bins of equal mass, averaged over the classes -> 0..1."""
    gaps = [
        sum(each.count * abs(each.confidence - each.accuracy) for each in reliability(p, y))
        for p, y in zip(P.T, Y.T, strict=True)
    ]
    return float(np.mean(gaps)) / len(P)
