"""Would more images help: the errors at N, N/2, N/4 and N/8 training images, and what 2 N and 4 N would give."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classify.evaluate import Z95, wilson
from classify.folds import Folds, Part
from classify.subsets import LEAVES, deal_folds, subsets
from extract.errors import OptionError

FitScore = Callable[[list[np.ndarray], np.ndarray], list[np.ndarray]]
"""Fit on each of the given rows of the part, name the test rows: [(n_i,)], (n_test,) -> [(n_test,) codes]."""

REACH = 4
"""How far beyond the largest size the curve is believed: as far as its authors found it reliable."""
ENOUGH_TESTED = 2000
"""Test rows beyond which no further fold is used: an error of 10 % is then known to 1.3 points."""
MOST_TESTED = 5000
"""Rows of a fold that are tested at most: more would say no more, and every subset of the training rows scores them."""
V0 = 0.02e-4
"""The variance between runs of equal data: 0.02 of errors in % (Hoiem et al. 2021), here of shares."""
WORTH = 0.01
"""A fall of the error by a doubling that is worth having: one point."""


@dataclass(frozen=True)
class Curve:
    """Error(n) = a + eta n^-0.5 with its covariance (2, 2); `test_sd` is that of the test rows, `largest` an n.

    Hoiem et al. 2021, "Learning curves for analysis of deep networks": the exponent is fixed, because three or four
    sizes do not tell it.
    """

    a: float
    eta: float
    covariance: np.ndarray
    test_sd: float
    largest: int

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Curve":
        """Take the curve from what `learning_curve` returned."""
        numbers = (found["a"], found["eta"], np.array(found["covariance"]), found["test_sd"])
        return cls(*numbers, found["refused_beyond"] // REACH)

    def predict(self, n: float) -> dict[str, float]:
        """Return the error expected of n training images, {value, low, high}; OptionError where it is a guess."""
        if not 1 <= n <= REACH * self.largest:
            said = f"a learning curve up to {self.largest} images says nothing of {n:.0f}"
            raise OptionError(said, remedy=f"Ask for at most {REACH * self.largest}, or fit on more images")
        value, half = self.a + self.eta * n**-0.5, Z95 * self.sd(n)
        return dict(
            zip(("value", "low", "high"), np.clip([value, value - half, value + half], 0, 1).tolist(), strict=True)
        )

    def sd(self, n: float) -> float:
        """Return the standard deviation of the error expected of n images: of the fit, and of the test rows."""
        x = np.array([1, n**-0.5])
        return math.sqrt(float(x @ self.covariance @ x) + self.test_sd**2)

    def gain(self) -> dict[str, float]:
        """Return by how much twice the images lower the error, {value, low, high}."""
        step = self.largest**-0.5 * (1 - 0.5**0.5)
        value, half = self.eta * step, Z95 * math.sqrt(self.covariance[1, 1]) * step
        return {"value": value, "low": value - half, "high": value + half}


@dataclass(frozen=True)
class Size:
    """What one size gave: n images, the errors (folds, parts), and the share of runs wrong on each row, weighted."""

    n: float
    errors: np.ndarray
    wrong: np.ndarray


def learning_curve(
    fit_score: FitScore, part: Part, folds: Folds, seed: int, metric: str = "accuracy"
) -> tuple[dict[str, Any] | None, list[str]]:
    """Measure the error on fewer images and extrapolate: -> what metrics.json shows, or None, and notes.

    The error is 1 - `metric`, accuracy or balanced accuracy; for any other metric the curve is that of accuracy.
    `fit_score` is called once per fold, with all subsets of its training rows: 1 + 2 + 4 (+ 8), disjoint within a
    size, nested between sizes, classes in proportion, groups whole. Folds are used until enough rows are tested.
    """
    used = _enough(folds)
    dealt = deal_folds(part, used, seed)
    if dealt is None:
        what = "images" if part.groups is None else "groups or unequal images"
        return None, [f"no learning curve: three sizes need {LEAVES[-1]} {what} of every class in every fold"]
    said = [] if metric in WEIGHTS else [f"the learning curve is of accuracy: {metric} is no mean over images"]
    metric = metric if metric in WEIGHTS else "accuracy"
    tested = np.concatenate([test for _, test in used])
    sizes = _measure(fit_score, part, used, dealt, WEIGHTS[metric](part.y, tested))
    unit = np.unique(tested if part.groups is None else part.groups[tested], return_inverse=True)[1]
    return {"metric": metric, "folds": len(used)} | _describe(sizes, unit), said


def _as_rare(y: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Weigh rows so that every tested class counts alike, a row 1 on average: (n,) -> (n,)."""
    counts = np.bincount(y[tested])
    return len(tested) / (np.count_nonzero(counts) * np.maximum(counts, 1))[y]


WEIGHTS = {"accuracy": lambda y, tested: np.ones(len(y)), "balanced_accuracy": _as_rare}
"""What each row (n,) counts for, of the rows tested."""


def _enough(folds: Folds) -> Folds:
    spread = [np.linspace(0, len(test) - 1, min(len(test), MOST_TESTED)).astype(int) for _, test in folds]
    folds = [(train, test[at]) for (train, test), at in zip(folds, spread, strict=True)]
    tested = np.cumsum([len(test) for _, test in folds])
    return folds[: int(np.searchsorted(tested, ENOUGH_TESTED)) + 1]


def _measure(
    fit_score: FitScore, part: Part, folds: Folds, dealt: Sequence[np.ndarray], weights: np.ndarray
) -> list[Size]:
    """Fit on every subset, and bring together what each size gave in all folds."""
    by_fold = []
    for (train, test), leaf in zip(folds, dealt, strict=True):
        sizes = subsets(train, leaf)
        predicted = iter(fit_score([rows for size in sizes for rows in size], test))
        wrong = [np.stack([(next(predicted) != part.y[test]) * weights[test] for _ in size]) for size in sizes]
        by_fold.append([(len(train) / len(runs), runs) for runs in wrong])
    return [_joined(fold_runs) for fold_runs in zip(*by_fold, strict=True)]


def _joined(found: Sequence[tuple[float, np.ndarray]]) -> Size:
    """Join one size's folds: each n and wrong (parts, n_test), weighted."""
    n = float(np.mean([n for n, _ in found]))
    errors = np.array([runs.mean(axis=1) for _, runs in found])
    return Size(n, errors, np.concatenate([runs.mean(axis=0) for _, runs in found]))


def smooth_variances(sizes: Sequence[float], errors: Sequence[np.ndarray]) -> np.ndarray:
    """Estimate the variance of a run at each size as v0 + v1 / n, from runs (folds, parts) of which there are several.

    Hoiem et al. 2021: v1 by least squares over 1 / n, weighted by the runs less one; never below 0.
    """
    several = [(1 / n, each.var(axis=1, ddof=1).mean(), each.shape[1] - 1)
               for n, each in zip(sizes, errors, strict=True) if each.shape[1] > 1]  # fmt: skip
    x, variance, weight = np.array(several).T
    v1 = float((weight * (variance - V0) * x).sum() / (weight * x * x).sum())
    return V0 + max(0.0, v1) / np.asarray(sizes)


def fit_curve(
    sizes: np.ndarray, errors: np.ndarray, variances: np.ndarray, runs: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Fit a and eta by weighted least squares over the sizes (k,), and their covariance (2, 2).

    A run weighs 1 / (variance * runs of its size), so a size weighs 1 / variance however many runs it had.
    """
    A, root = np.stack([np.ones(len(sizes)), sizes**-0.5], axis=1), variances**-0.5
    M = np.linalg.pinv(A * root[:, None]) * root
    a, eta = M @ errors
    return float(a), float(eta), (M * (variances / runs)) @ M.T


def _describe(sizes: list[Size], unit: np.ndarray) -> dict[str, Any]:
    """Fit the curve and say what it shows: sizes, largest first, and the unit of each tested row."""
    n, runs = np.array([size.n for size in sizes]), np.array([size.errors.shape[1] for size in sizes])
    variances = smooth_variances(n.tolist(), [size.errors for size in sizes])
    errors = np.array([size.wrong.mean() for size in sizes])
    a, eta, covariance = fit_curve(n, errors, variances, runs)
    curve = Curve(a, eta, covariance, _clustered_sd(sizes[0].wrong, unit), round(n[0]))
    points = [
        {"n": round(size.n), "error": _point(size, float(variance), unit), "runs": int(size.errors.size)}
        for size, variance in zip(sizes, variances, strict=True)
    ]
    return {"points": points[::-1], "n_tested": len(unit)} | _extrapolate(curve, n[-1])


def _clustered_sd(wrong: np.ndarray, unit: np.ndarray) -> float:
    """Return the standard deviation of a mean over rows of which some belong together: (n,), (n,) units."""
    totals = np.bincount(unit, weights=wrong - wrong.mean())
    return math.sqrt(float((totals**2).sum()) * len(totals) / max(1, len(totals) - 1)) / len(wrong)


def _point(size: Size, variance: float, unit: np.ndarray) -> dict[str, float]:
    """Return the error at one size with Wilson's interval, over as many rows as its spread is worth."""
    value = float(size.wrong.mean())
    spread = _clustered_sd(size.wrong, unit) ** 2 + variance / size.errors.shape[1]
    n = min(float(len(unit)), value * (1 - value) / spread) if 0 < value < 1 else float(unit.max() + 1)
    low, high = wilson(value * n, n)
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def _extrapolate(curve: Curve, smallest: float) -> dict[str, Any]:
    largest, gain = curve.largest, curve.gain()
    ahead = [{"n": times * largest, "error": curve.predict(times * largest)} for times in (2, REACH)]
    shown = np.geomspace(smallest, REACH * largest, 17)
    verdict, words = _words(curve, gain)
    return {
        "a": curve.a,
        "eta": curve.eta,
        "covariance": curve.covariance.tolist(),
        "test_sd": curve.test_sd,
        "band_sd": curve.sd(largest),
        "slope_per_doubling": -gain["value"],
        "data_reliance": curve.eta * largest**-0.5,
        "predictions": ahead,
        "curve": [{"n": round(float(n)), "error": curve.predict(min(float(n), REACH * largest))} for n in shown],
        "refused_beyond": REACH * largest,
        "verdict": verdict,
        "words": words,
    }


def _words(curve: Curve, gain: dict[str, float]) -> tuple[str, str]:
    """Say whether more images would help: those of which a doubling surely lowers the error, by a point or more."""
    now, then = curve.predict(curve.largest), curve.predict(2 * curve.largest)
    said = (
        f"twice the {curve.largest} training images would bring the error from about {now['value']:.1%} "
        f"to about {then['value']:.1%} ({then['low']:.1%} to {then['high']:.1%})"
    )
    if gain["low"] > 0 and gain["value"] >= WORTH:
        return "data-limited", f"Limited by the number of images: {said}."
    if gain["high"] < WORTH:
        return "saturated", f"Saturated: {said}; more of the same images would hardly help."
    return "undecided", f"Whether more images would help is not clear: {said}."
