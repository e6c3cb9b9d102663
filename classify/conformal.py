"""Answers with a promise: sets of classes that hold the truth as often as asked, and a bound below which to abstain.

**What calibration out of fold promises.** Split conformal prediction (Vovk et al. 2005; LAC: Sadinle et al. 2019)
promises coverage of 1 - alpha or more for any head and any data, if the calibration rows and the new one are
exchangeable, and if all of them are scored by *one* head that has seen none of them. Of the second, out-of-fold rows
fall short: each fold has a head of its own, and the bundle's is another one, fitted on all rows. Cross-conformal
predictors, which keep the heads of the folds, cover about 1 - 2 alpha at worst (Vovk 2015; Barber et al. 2021); for the
refitted head nothing is proven. In practice it is a little better than the fold heads, having seen more rows, and sets
cover a little more than asked. Hence the coverage is also measured on test rows, and shown with its interval. That the
temperature is fitted on the same rows bends the promise by next to nothing: it is one number.

**Exchangeable** are not images of one group, nor near-duplicates. Of each group one row is drawn (Dunn et al. 2023,
once subsampled), and the promise is about an image of a *new* group. New data from elsewhere are promised nothing.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from classify.evaluate import Resamples, evaluate, wilson
from classify.thresholds import RULES, Abstain, Conformal
from extract.errors import OptionError, unknown

ALPHA = 0.1
"""What share of the sets may miss the truth, where nobody said."""
FEWEST_PER_CLASS = 50
"""Calibration rows of every class, from which on each has its own threshold."""
CURVE_POINTS = 200
ROUNDING = 1e-9
"""A product such as 100 x 0.9 may come out above 90 by its last bit."""


def fit_conformal(
    probabilities: np.ndarray, y: np.ndarray, alpha: float = ALPHA, groups: np.ndarray | None = None, seed: int = 0
) -> Conformal:
    """Calibrate sets on rows out of fold: (n, C), (n,) codes below C, groups (n,) codes or None -> thresholds.

    With 50 rows of every class or more each class has a threshold of its own, and coverage is promised for each.
    """
    if not 0 < alpha < 1:
        raise OptionError(f"alpha={alpha}", remedy="Take a share between 0 and 1, as 0.1")
    at = np.arange(len(y)) if groups is None else one_of_each(groups, seed)
    misfit, codes, n_classes = 1 - probabilities[at, y[at]], y[at], probabilities.shape[1]
    own = bool(np.bincount(codes, minlength=n_classes).min() >= FEWEST_PER_CLASS)
    parts = [misfit[codes == code] for code in range(n_classes)] if own else [misfit] * n_classes
    return Conformal(alpha, tuple(quantile_for(part, alpha) for part in parts), own, len(at))


def one_of_each(groups: np.ndarray, seed: int) -> np.ndarray:
    """Draw one row of each group: (n,) codes -> row numbers (groups,), sorted."""
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    first = np.unique(groups[shuffled], return_index=True)[1]
    return np.sort(shuffled[first])


def quantile_for(misfit: np.ndarray, alpha: float) -> float:
    """Return the ceil((n + 1)(1 - alpha))-th smallest of n scores (n,) in 0..1; 1 where n is too small for that."""
    at = math.ceil((len(misfit) + 1) * (1 - alpha) - ROUNDING)
    return float(np.sort(misfit)[at - 1]) if at <= len(misfit) else 1.0


def measure_sets(sets: np.ndarray, y: np.ndarray, resamples: Resamples) -> dict[str, Any]:
    """Measure sets on rows not calibrated on: (n, C) bool, (n,) codes -> coverage with its interval, sizes.

    The interval is Wilson's, over as many rows as the groups are worth. A label that is no class is in no set.
    """
    known = y < sets.shape[1]
    held = np.zeros(len(y), dtype=np.int64)
    held[known] = sets[known, y[known]]
    size = sets.sum(axis=1)
    coverage = evaluate(np.ones_like(held), held, resamples)["accuracy"]
    shares = {"singletons": float((size == 1).mean()), "empty": float((size == 0).mean())}
    return {"coverage": coverage, "mean_size": float(size.mean()), **shares}


def risk_coverage(confidence: np.ndarray, hit: np.ndarray) -> dict[str, Any]:
    """Return the share of errors among the surest rows, for every share of rows: confidence (n,), hit (n,) bool.

    `aurc` is the mean over all n shares (Geifman & El-Yaniv 2017); `coverage` and `risk` are at most 200 points of the
    curve. Rows of equal confidence have no order: each counts as the mean of its equals.
    """
    errors = _sorted_errors(confidence, hit)
    risk = errors.cumsum() / np.arange(1, len(errors) + 1)
    at = np.unique(np.linspace(0, len(risk) - 1, min(len(risk), CURVE_POINTS)).astype(int))
    return {"aurc": float(risk.mean()), "coverage": ((at + 1) / len(risk)).tolist(), "risk": risk[at].tolist()}


def _sorted_errors(confidence: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Return the errors, surest row first: (n,), (n,) -> (n,) float, the mean of its equals at each."""
    _, level = np.unique(-confidence, return_inverse=True)
    wrong = np.bincount(level, weights=~hit) / np.bincount(level)
    return wrong[np.sort(level)]


def _at_accuracy(confidence: np.ndarray, hit: np.ndarray, asked: float) -> float | None:
    levels, level = np.unique(confidence, return_inverse=True)
    right, rows = (np.bincount(level, weights=w)[::-1].cumsum()[::-1] for w in (hit, np.ones(len(hit))))
    reached = np.flatnonzero(right >= asked * rows - ROUNDING)
    return float(levels[reached[0]]) if len(reached) else None


def _at_coverage(confidence: np.ndarray, hit: np.ndarray, asked: float) -> float | None:
    return float(np.sort(confidence)[::-1][math.ceil(asked * len(confidence) - ROUNDING) - 1])


ABSTAIN: dict[str, Callable[[np.ndarray, np.ndarray, float], float | None]] = dict(
    zip(RULES, (_at_accuracy, _at_coverage), strict=True)
)
"""What may be asked of the answers that are given."""


def fit_abstain(confidence: np.ndarray, hit: np.ndarray, by: str, asked: float) -> Abstain | None:
    """Choose below which probability not to answer, on rows out of fold: confidence (n,), hit (n,) bool.

    By `accuracy`: the lowest threshold at which those answered are right as often as asked; None where no threshold is.
    By `coverage`: the highest threshold at which that share is answered. Chosen and measured on the same rows, it
    promises less than it says: see what `measure_abstain` says of test rows.
    """
    if by not in ABSTAIN:
        unknown("rule to abstain by", by, ABSTAIN, OptionError)
    if not 0 < asked <= 1:
        raise OptionError(f"an {by} of {asked}", remedy="Take a share above 0, up to 1")
    threshold = ABSTAIN[by](confidence, hit, asked)
    if threshold is None:
        return None
    answered = confidence >= threshold
    return Abstain(threshold, asked, by, float(answered.mean()), float(hit[answered].mean()))


def measure_abstain(threshold: float, confidence: np.ndarray, hit: np.ndarray) -> dict[str, Any]:
    """Measure a threshold on other rows: confidence (n,), hit (n,) bool -> coverage, accuracy of the answered.

    Both with Wilson's interval; the accuracy is None where nothing is answered.
    """
    answered = confidence >= threshold
    right, n = float(hit[answered].sum()), int(answered.sum())
    accuracy = _proportion(right, n) if n else None
    return {"coverage": _proportion(n, len(hit)), "accuracy_of_answered": accuracy}


def _proportion(successes: float, n: float) -> Mapping[str, float]:
    low, high = wilson(successes, n)
    return {"value": successes / n, "low": low, "high": high}
