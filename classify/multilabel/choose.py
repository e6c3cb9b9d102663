"""Which of many configurations to take, and what the one that was taken is worth: by mean AP in shared draws."""

from collections.abc import Callable, Sequence

import numpy as np

from classify.evaluate import interval
from classify.multilabel.metrics import Interval


def cheapest_of_the_best(values: np.ndarray, drawn: np.ndarray, order: Sequence[int]) -> int:
    """Choose the cheapest that is within one standard error of the best: values (m,), drawn (m, B) -> its number.

    `order` goes from cheap to dear. The error is that of the paired difference to the best (Breiman et al. 1984,
    section 3.4.3; see `statistics.one_standard_error`, which has predictions of one label an image).
    """
    best = next(at for at in order if values[at] == values.max())
    errors = np.nanstd(drawn[best] - drawn, axis=1, ddof=1)
    return next(at for at in order if values[at] >= values[best] - errors[at])


LeftOut = Callable[[int, np.ndarray], np.ndarray]
"""Mean AP of a configuration in draws of rows: its number, (units, B) -> (B,)."""


def corrected(values: np.ndarray, drawn: np.ndarray, taken: int, counts: np.ndarray, left_out: LeftOut) -> Interval:
    """Take from the value of the one that was `taken` what being the best of many is worth: -> {value, low, high}.

    values (m,), drawn (m, B), counts (units, B). As in bootstrap bias-corrected cross-validation (Tsamardinos,
    Greasidou and Borboudakis 2018, algorithm 4) each draw chooses the best on the rows it took, and scores it on those
    it left. Mean AP is higher the fewer the rows, so these scores count only against those of the best of all, on the
    same rows: the mean difference is the bias.
    """
    rest = (counts == 0).astype(np.float32)
    chosen = np.where(np.isnan(drawn), -np.inf, drawn).argmax(axis=0)
    scores = np.empty(len(chosen))
    for at in np.unique(chosen).tolist():
        scores[chosen == at] = left_out(at, rest[:, chosen == at])
    gaps = left_out(int(values.argmax()), rest) - scores
    known = ~np.isnan(gaps)
    fair = float(values[taken] - max(0.0, gaps[known].mean()))
    return interval(fair, fair + scores[known] - scores[known].mean())
