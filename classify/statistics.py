"""Is it really better: a score corrected for having been chosen, the one-standard-error rule, paired comparisons."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import binom, t

from classify.evaluate import METRICS, N_RESAMPLES, Resamples, values_of
from extract.errors import FitError

ROWS = 4096
"""In a block: with 1,000 draws and 500 configurations, 40 MB."""
Choose = Callable[[np.ndarray], np.ndarray]
"""Chooses a configuration in each draw, by what all are worth in it: (m, B) -> numbers (B,)."""
CELLS = 2**24
"""(pattern, draw) cells at a time: 64 MB of float32."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two, its 95 % interval, and the two-sided p of there being none."""

    mean: float
    low: float
    high: float
    p: float


def the_best(draws: np.ndarray) -> np.ndarray:
    """Choose the best of each draw, of equals the first: (m, B) -> (B,)."""
    return draws.argmax(axis=0)


def bbc(
    predicted: np.ndarray, y: np.ndarray, resamples: Resamples, metric: str, choose: Choose = the_best
) -> dict[str, float]:
    """Estimate what the chosen one of many is worth: (m, n) codes out of fold, y (n,) -> {value, low, high}.

    Bootstrap bias-corrected cross-validation (Tsamardinos, Greasidou and Borboudakis 2018, algorithm 4): each draw
    chooses on the rows it took and scores that on those it left; the mean, and the percentiles of all draws. Raises
    FitError where no draw leaves a row.
    """
    chosen = choose(drawn(predicted, y, resamples, metric))
    scores = np.array(_left_out(predicted, y, resamples, metric, chosen))
    if not len(scores):
        raise FitError("all rows are one group: none is left to score on", remedy="Give more groups, or --group none")
    low, high = np.quantile(scores, [0.025, 0.975])
    return {"value": float(scores.mean()), "low": float(low), "high": float(high)}


def _left_out(
    predicted: np.ndarray, y: np.ndarray, resamples: Resamples, metric: str, chosen: np.ndarray
) -> list[float]:
    """Score each draw's choice on the rows that the draw left, where there are any: chosen (B,) -> up to B scores."""
    leaves, scores = resamples.counts.min(axis=0) == 0, []
    for code in np.unique(chosen[leaves]):
        left = (resamples.counts[:, leaves & (chosen == code)] == 0).astype(np.float32)
        rest = Resamples(resamples.unit, left, resamples.grouped)
        scores += drawn(predicted[code : code + 1], y, rest, metric)[0].tolist()
    return scores


def one_standard_error(
    predicted: np.ndarray, y: np.ndarray, resamples: Resamples, metric: str, order: Sequence[int]
) -> int:
    """Choose the cheapest that is not clearly worse than the best: (m, n) codes, `order` cheap to dear -> its number.

    Breiman et al. 1984, section 3.4.3, with the standard error of the paired difference to the best, from draws that
    both share: two that err alike are told apart by less than two that err apart. Of equal bests the cheapest counts.
    """
    values, draws = values_of(y, predicted)[metric], drawn(predicted, y, resamples, metric)
    best = next(at for at in order if values[at] == values.max())
    errors = (draws[best] - draws).std(axis=1, ddof=1)
    return next(at for at in order if values[at] >= values[best] - errors[at])


def paired_errors(draws: np.ndarray) -> np.ndarray:
    """Return the standard error of the difference of each two: draws (m, B) -> (m, m)."""
    covariance = np.atleast_2d(np.cov(draws))
    variance = covariance.diagonal()
    return np.sqrt(np.maximum(variance[:, None] + variance - 2 * covariance, 0))


def drawn(predicted: np.ndarray, y: np.ndarray, resamples: Resamples, metric: str) -> np.ndarray:
    """Measure many predictions in every bootstrap draw: (m, n) codes, y (n,) -> (m, B) float64, by a few GEMMs."""
    return DRAWN[metric](predicted, y, resamples)


def _drawn_accuracy(predicted: np.ndarray, y: np.ndarray, resamples: Resamples) -> np.ndarray:
    hits, support = _drawn_hits(predicted, y, resamples, np.arange(len(y)))
    return hits / support


def _drawn_balanced(predicted: np.ndarray, y: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Average the recall of the labels that a draw holds."""
    total, present = np.zeros((len(predicted), resamples.counts.shape[1])), 0
    for code in np.unique(y):
        hits, support = _drawn_hits(predicted, y, resamples, np.flatnonzero(y == code))
        total += hits / np.maximum(support, 1)
        present = present + (support > 0)
    return total / present


def _drawn_hits(
    predicted: np.ndarray, y: np.ndarray, resamples: Resamples, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count, over some rows, what each draw has right and what it holds: -> (m, B), (B,) float64.

    A block's counts are whole numbers far below 2^24, so float32 adds them up exactly.
    """
    hits, support = np.zeros((len(predicted), resamples.counts.shape[1])), np.zeros(resamples.counts.shape[1])
    for block in _blocks(rows[np.argsort(resamples.unit[rows], kind="stable")]):
        units, starts, sizes = np.unique(resamples.unit[block], return_index=True, return_counts=True)
        right, counts = (predicted[:, block] == y[block]).astype(np.float32), resamples.counts[units]
        hits += np.add.reduceat(right, starts, axis=1) @ counts
        support += sizes @ counts
    return hits, support


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[at : at + ROWS] for at in range(0, len(rows), ROWS))


def _drawn_f1(predicted: np.ndarray, y: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Average F1 = 2 hits / (support + named) over the labels that a draw holds or names.

    Configurations mostly agree, so each is counted by the rows in which it differs from the first.
    """
    n_labels, rows, first = int(max(y.max(), predicted.max())) + 1, np.arange(len(y)), predicted[0]
    support = _tally(y, y, rows, resamples, n_labels)[:n_labels]
    counted = _tally(first, y, rows, resamples, n_labels)
    found = np.empty((len(predicted), resamples.counts.shape[1]))
    for at, codes in enumerate(predicted):
        other = np.flatnonzero(codes != first)
        moved = _tally(codes, y, other, resamples, n_labels) - _tally(first, y, other, resamples, n_labels)
        named, hits = np.split((counted + moved).astype(np.float64), 2)
        found[at] = (2 * hits / np.maximum(support + named, 1)).sum(axis=0) / (support + named > 0).sum(axis=0)
    return found


def _tally(codes: np.ndarray, y: np.ndarray, rows: np.ndarray, resamples: Resamples, n_labels: int) -> np.ndarray:
    """Count by draw how often some rows name each label, and name it rightly: -> (2 L, B) float32."""
    hit = rows[codes[rows] == y[rows]]
    labels, units = np.concatenate([codes[rows], y[hit] + n_labels]), resamples.unit[np.concatenate([rows, hit])]
    ones = np.ones(len(labels), dtype=np.float32)
    return csr_array((ones, (labels, units)), shape=(2 * n_labels, len(resamples.counts))) @ resamples.counts


DRAWN: dict[str, Callable[[np.ndarray, np.ndarray, Resamples], np.ndarray]] = {
    "accuracy": _drawn_accuracy,
    "balanced_accuracy": _drawn_balanced,
    "macro_f1": _drawn_f1,
}


def paired(y: np.ndarray, a: np.ndarray, b: np.ndarray, resamples: Resamples, metric: str) -> Comparison:
    """Compare two predictions of the same rows, a - b: y, a, b (n,) codes.

    Paired bootstrap (Efron and Tibshirani 1993, chapters 13 and 16) of rows, or of groups: each draw measures both.
    Wider where groups are few, as `Resamples.widening` has it.
    """
    both = np.stack([a, b])
    values, draws = values_of(y, both)[metric], drawn(both, y, resamples, metric)
    return _compared(float(values[0] - values[1]), draws[0] - draws[1], resamples.widening)


def paired_rows(y: np.ndarray, a: np.ndarray, b: np.ndarray, seed: int) -> dict[str, Comparison]:
    """Compare as `paired`, by every metric, rows that all stand alone: -> {metric: a - b}.

    Rows of one (label, a, b) are exchangeable, so a draw is multinomial over these patterns, of which there are few.
    """
    values = values_of(y, np.stack([a, b]))
    found: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    for pattern, resamples in _patterns(y, a, b, seed):
        for metric in METRICS:
            draws = drawn(pattern[1:], pattern[0], resamples, metric)
            found[metric].append(draws[0] - draws[1])
    return {
        metric: _compared(float(values[metric][0] - values[metric][1]), np.concatenate(found[metric]))
        for metric in METRICS
    }


def _patterns(y: np.ndarray, a: np.ndarray, b: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, Resamples]]:
    """Yield the distinct columns (3, K) of label, a and b, with some of the N_RESAMPLES draws of them each time."""
    pattern, times = np.unique(np.stack([y, a, b]), axis=1, return_counts=True)
    rng, at_once = np.random.default_rng(seed), max(1, CELLS // len(times))
    for at in range(0, N_RESAMPLES, at_once):
        counts = rng.multinomial(len(y), times / len(y), size=min(at_once, N_RESAMPLES - at))
        yield pattern, Resamples(np.arange(len(times)), counts.T.astype(np.float32), grouped=False)


def _compared(value: float, draws: np.ndarray, widening: float = 1.0) -> Comparison:
    """Sum up the draws (B,) of a difference of shares; p counts itself among them (Davison and Hinkley 1997, 4.2.3)."""
    if math.isinf(widening):
        return Comparison(value, -1.0, 1.0, 1.0)  # of one group, whose draws are all alike
    draws = value + widening * (draws - value)
    low, high = np.quantile(draws, [0.025, 0.975])
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p = min(1.0, 2 * (1 + beyond) / (1 + len(draws)))
    # Draws of few groups, widened, go beyond what a difference of shares can be.
    return Comparison(value, max(-1.0, min(float(low), value)), min(1.0, max(float(high), value)), p)


def corrected_t(differences: np.ndarray, n_train: float, n_test: float) -> Comparison:
    """Compare two by their differences (J,) in J resampled tests, n_train and n_test rows each.

    Corrected resampled t (Nadeau and Bengio 2003): as training parts overlap, the variance is (1/J + n_test/n_train)
    s^2, on J - 1 degrees of freedom. Raises FitError for fewer than two differences.
    """
    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        raise FitError(f"{count} test has no spread", remedy="Compare over two folds or more")
    error = math.sqrt((1 / count + n_test / n_train) * float(np.var(differences, ddof=1)))
    half = float(t.ppf(0.975, count - 1)) * error
    # Differences that are all one have no spread: then there is a difference for certain, or none.
    p = float(2 * t.sf(abs(mean) / error, count - 1)) if error else float(mean == 0)
    return Comparison(mean, mean - half, mean + half, p)


def mcnemar(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Test whether two are right equally often, on rows that stand alone: y, a, b (n,) codes -> two-sided p.

    Exact conditional McNemar test, mid-p (Fagerland, Lydersen and Laake 2013, supplement, equation 2).
    """
    right, wrong = int(((a == y) & (b != y)).sum()), int(((a != y) & (b == y)).sum())
    if right + wrong == 0:
        return 1.0
    at, here = min(right, wrong), float(binom.pmf(right, right + wrong, 0.5))
    return 1 - here / 2 if right == wrong else float(2 * binom.cdf(at, right + wrong, 0.5)) - here
