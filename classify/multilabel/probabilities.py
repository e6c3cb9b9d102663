"""Scores -> the probability of each class by itself: one temperature a class, fitted out of fold."""

import numpy as np
from scipy.special import expit

from classify.calibrate import fit_temperature, reliability

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
    positives = Y.sum(axis=0)
    enough = np.minimum(positives, len(Y) - positives) >= FEWEST
    return np.array([_temperature(*each) if own else common for *each, own in zip(scores.T, Y.T, enough, strict=True)])


def _temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """Fit one: (n,), (n,) bool. The softmax of (-s/2, s/2) is the sigmoid of s."""
    return fit_temperature(np.stack([-scores / 2, scores / 2], axis=1), y.astype(np.int64))


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
