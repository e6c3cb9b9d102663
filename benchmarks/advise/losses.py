"""What a choice loses against the best in hindsight, and how much of that may be chance; in shares of the images."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import t

from benchmarks.cells.outcomes import Outcome
from benchmarks.cells.sets import Cell
from classify.statistics import drawn

SURE = 0.95
HALVES = 500
"""Random halves of the test images that are averaged over."""


def best_of(found: Mapping[str, Outcome]) -> str:
    """Name what was best on the test images, of equals the first."""
    return max(found, key=lambda name: found[name].accuracy)


def lost(found: Mapping[str, Outcome], chosen: Outcome) -> float:
    """Return by how much the best in hindsight is above a choice; negative where the choice is above all.

    As the best is chosen on the images that it is judged on, chance alone makes this larger than what is really lost.
    """
    return found[best_of(found)].accuracy - chosen.accuracy


def surely_lost(found: Mapping[str, Outcome], chosen: Outcome) -> float:
    """Return what is lost at least, with 95 % confidence, although the best of several was picked: 0 or more.

    Multiple comparisons with the best (Hsu 1984), with the distribution of the largest studentized excess from
    bootstrap draws that all share, of images or whole groups; wider where groups are few, as `Resamples.widening` is.
    """
    gains, draws = _gains(found, chosen)
    widening = chosen.resamples().widening
    if math.isinf(widening):
        return 0.0
    errors = draws.std(axis=1, ddof=1)
    excess = np.divide(draws - gains[:, None], errors[:, None], out=np.zeros_like(draws), where=errors[:, None] > 0)
    margins = widening * float(np.quantile(excess.max(axis=0), SURE)) * errors
    return max(0.0, float((gains - margins).max()))


def _gains(found: Mapping[str, Outcome], chosen: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much each of m is above a choice, on all images and in each draw: -> (m,), (m, B)."""
    right = np.stack([each.right for each in (*found.values(), chosen)])
    values = right.mean(axis=1)
    draws = drawn(right.astype(np.int64), np.ones(right.shape[1], np.int64), chosen.resamples(), "accuracy")
    return values[:-1] - values[-1], draws[:-1] - draws[-1]


def lost_by_halves(found: Mapping[str, Outcome], chosen: Outcome, seed: int = 0) -> float:
    """Return what is lost against the best on one half of the test images, as the other half has it.

    So nothing is worth more for having been picked on the images that it is judged on, as in cross-validation. What is
    picked on half of the images may not be the best: rather too little than too much. Groups are halved whole.
    """
    unit = chosen.resamples().unit
    right = np.stack([each.right for each in (*found.values(), chosen)])
    sums, sizes = np.stack([np.bincount(unit, weights=each) for each in right]), np.bincount(unit)
    order = np.random.default_rng(seed).random((len(sizes), HALVES)).argsort(axis=0)
    first = (order < len(sizes) // 2).astype(np.float64)
    one, two = (sums @ half / (sizes @ half) for half in (first, 1 - first))
    return float(np.mean([_picked(one, two), _picked(two, one)]))


def _picked(one: np.ndarray, other: np.ndarray) -> float:
    """Pick the best by one half, and say what it gains over the last row in the other: (m + 1, halves) accuracies."""
    best = one[:-1].argmax(axis=0)
    return float((other[best, np.arange(other.shape[1])] - other[-1]).mean())


def over_sets(values: Mapping[Cell, float]) -> tuple[float, float, float]:
    """Average over the sets, each the mean of its cells: -> the mean, and its 95 % interval by Student's t.

    The sets are what other sets would differ from; sizes of one set share its images. One set tells nothing of others.
    """
    by_set: dict[str, list[float]] = {}
    for cell, value in values.items():
        by_set.setdefault(cell.images.name, []).append(value)
    means = np.array([np.mean(each) for each in by_set.values()])
    if len(means) < 2:
        return float(means.mean()), -math.inf, math.inf
    half = float(t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means)))
    return float(means.mean()), float(means.mean()) - half, float(means.mean()) + half
