"""Scores -> probabilities that mean what they say: one temperature, fitted on rows the head has not seen."""

import numpy as np
from scipy.optimize import minimize_scalar

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of the temperature."""

SMALLEST = float(np.finfo(np.float64).eps)
"""What a probability of 0 costs in the log-loss: as in sklearn, so that one sure error is dear and not infinite."""


def softmax(scores: np.ndarray) -> np.ndarray:
    """Turn scores into probabilities that add up to 1: (n, C) -> (n, C)."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def losses(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log-loss of each row: (n, C), (n,) codes -> (n,); a code of C or more has probability 0."""
    known = y < probabilities.shape[1]
    picked = np.zeros(len(y))
    picked[known] = probabilities[known, y[known]]
    return -np.log(np.maximum(picked, SMALLEST))


def nll(scores: np.ndarray, y: np.ndarray, temperature: float = 1.0) -> float:
    """Mean log-loss of softmax(scores / temperature): (n, C), (n,) -> nats."""
    return float(losses(softmax(scores / temperature), y).mean())


def fit_temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """Find the temperature of lowest log-loss within the bounds: out-of-fold scores (n, C), y (n,) -> T.

    Searched in log T, where the log-loss has one minimum. Guo et al. 2017, section 4.2.
    """
    bounds = (np.log(LOWEST), np.log(HIGHEST))
    found = minimize_scalar(
        lambda log_t: nll(scores, y, float(np.exp(log_t))), bounds=bounds, method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def at_bound(temperature: float) -> bool:
    """Say whether the best temperature lies at, and so perhaps beyond, what is allowed."""
    return not LOWEST * 1.001 < temperature < HIGHEST * 0.999
