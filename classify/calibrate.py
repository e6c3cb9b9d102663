"""Scores -> probabilities that mean what they say: one temperature, fitted on rows the head has not seen.

Everything here is about scores out of fold, or of test rows. On the rows that a head was fitted on, nearly every answer
is right and sure: a temperature found there would be near the lowest allowed.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from classify.scoring import softmax

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of the temperature; the lower one where scores are as far apart as log-odds are."""

SURE = 6.0
"""By how much the best class may at least stand above the second, in log-odds, at the lowest temperature: 99.8 %."""

SMALLEST = float(np.finfo(np.float64).eps)
"""What a probability of 0 costs in the log-loss: as in sklearn, so that one sure error is dear and not infinite."""

N_BINS = 15
"""Bins of equal mass, as usual since Guo et al. 2017 (theirs were of equal width)."""


@dataclass(frozen=True)
class Bin:
    """Rows of about the same confidence: its mean, how many of them were right, and how many they are."""

    confidence: float
    accuracy: float
    count: int


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
    """Find the temperature of lowest log-loss, `lowest_of` to HIGHEST: out-of-fold scores (n, C), y (n,) -> T.

    Searched in log T, where the log-loss has one minimum. Guo et al. 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar  # here, as who only predicts may not have SciPy

    bounds = (np.log(lowest_of(scores)), np.log(HIGHEST))
    found = minimize_scalar(
        lambda log_t: nll(scores, y, float(np.exp(log_t))), bounds=bounds, method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def lowest_of(scores: np.ndarray) -> float:
    """Return how low the temperature of scores (n, C) may be: LOWEST at most.

    By the median of rows the best class then stands SURE above the second, or more. The one-standard-error rule may
    take so strong a penalty that scores differ by 1e-6: in the right order, but divided by 0.05 they would say 1 / C of
    each class.
    """
    second, best = np.sort(scores, axis=1)[:, -2:].T
    found = float(np.median(best - second))
    return min(LOWEST, found / SURE) if found > SMALLEST else LOWEST


def at_bound(temperature: float, scores: np.ndarray) -> bool:
    """Say whether the best temperature of scores (n, C) lies at, and so perhaps beyond, what is allowed."""
    return not lowest_of(scores) * 1.001 < temperature < HIGHEST * 0.999


def brier(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Mean squared distance to the truth, summed over the classes (Brier 1950): (n, C), (n,) codes -> 0..2.

    Of a label that is no class, every class is wrong.
    """
    truth = y[:, None] == np.arange(probabilities.shape[1])
    unseen = y >= probabilities.shape[1]
    return float((((probabilities - truth) ** 2).sum(axis=1) + unseen).mean())


def reliability(confidence: np.ndarray, hit: np.ndarray, n_bins: int = N_BINS) -> list[Bin]:
    """Sort rows by confidence (n,) and cut them into bins of equal mass: hit (n,) bool -> bins, least sure first."""
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(n_bins, len(order)))
    return [Bin(float(confidence[at].mean()), float(hit[at].mean()), len(at)) for at in parts]


def _gap(bins: list[Bin]) -> float:
    """Mean distance of confidence and accuracy over the rows of the bins: 0..1."""
    return sum(each.count * abs(each.confidence - each.accuracy) for each in bins) / sum(each.count for each in bins)


def top_label(probabilities: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return of each row how sure the answer is and whether it is right: (n, C), (n,) -> (n,) float, (n,) bool."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == y


def ece(probabilities: np.ndarray, y: np.ndarray, n_bins: int = N_BINS) -> float:
    """Expected calibration error of the answers, over bins of equal mass: (n, C), (n,) codes -> 0..1."""
    return _gap(reliability(*top_label(probabilities, y), n_bins))


def classwise_ece(probabilities: np.ndarray, y: np.ndarray, n_bins: int = N_BINS) -> float:
    """Calibration error of every class's probability, averaged over the classes: (n, C), (n,) codes -> 0..1.

    Kull et al. 2019, section 2; the top label alone may be calibrated while classes make up for each other.
    """
    columns = enumerate(probabilities.T)
    return float(np.mean([_gap(reliability(column, y == code, n_bins)) for code, column in columns]))


MEASURES = {"ece": ece, "classwise_ece": classwise_ece, "brier": brier}


def calibration(probabilities: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Measure probabilities of rows the head has not seen: (n, C), (n,) codes -> each measure, the bins of the plot."""
    bins = reliability(*top_label(probabilities, y))
    found: dict[str, Any] = {"nll": float(losses(probabilities, y).mean())}
    found |= {name: measure(probabilities, y) for name, measure in MEASURES.items()}
    return found | {"reliability": [asdict(each) for each in bins]}


def before_and_after(scores: np.ndarray, y: np.ndarray, temperature: float) -> dict[str, Any]:
    """Measure what the temperature did: out-of-fold or test scores (n, C) -> {measure}_before and {measure}_after."""
    sides = {"before": calibration(softmax(scores), y), "after": calibration(softmax(scores / temperature), y)}
    return {f"{name}_{side}": value for side, found in sides.items() for name, value in found.items()}
