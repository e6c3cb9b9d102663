"""Labels that are probably wrong, by confident learning on probabilities out of fold (Northcutt et al. 2021)."""

import warnings
from dataclasses import dataclass

import numpy as np

from extract.errors import FitError

MANY = 0.15
"""Of labels that are probably wrong, above which the head is the likelier to err: sets in use have 0.2 to 10 % of wrong
labels (Northcutt, Athalye and Mueller 2021, table 2)."""


@dataclass(frozen=True)
class LabelIssues:
    """Rows whose label is probably wrong, the most suspect first, and how many rows were judged.

    `at` (m,) int64 are positions among the rows that were given, `suggested` (m,) the likeliest class of each,
    `probability` (m,) that of the given label (the self-confidence, by which they are sorted), `margin` (m,) from 0 to
    1: how far the given label lies above the likeliest other one, 0.5 being level with it. `agreed` is the share of the
    rows judged whose label is the likeliest class.
    """

    at: np.ndarray
    suggested: np.ndarray
    probability: np.ndarray
    margin: np.ndarray
    n_checked: int
    agreed: float

    def __len__(self) -> int:
        return len(self.at)

    @property
    def words(self) -> str:
        """Say what was found."""
        if not self.n_checked:
            return "no label could be checked: no image has probabilities out of fold"
        if len(self) > MANY * self.n_checked:
            return (
                f"{len(self)} of {self.n_checked} labels are not what the head says, but it is right in "
                f"{self.agreed:.0%} only: most of these are errors of the head; the first are likeliest to be wrong"
            )
        found = f"{len(self)} of {self.n_checked} labels are probably wrong" if len(self) else "no label looks wrong"
        return f"{found} (confident learning on predictions out of fold); look at them before you change any"


def label_issues(probabilities: np.ndarray, y: np.ndarray) -> LabelIssues:
    """Find labels that are probably wrong: calibrated probabilities (n, C) out of fold, y (n,) codes.

    Left out are rows without probabilities (NaN), and of classes that nothing was trained on (codes of C or more).
    Raises FitError where the others are no probabilities.
    """
    y = np.asarray(y, dtype=np.int64)
    checked = np.flatnonzero(np.isfinite(probabilities).all(axis=1) & (y >= 0) & (y < probabilities.shape[1]))
    shares, given = np.asarray(probabilities[checked], dtype=np.float64), y[checked]
    if len(checked) and (shares.min() < 0 or abs(shares.sum(axis=1) - 1).max() > 1e-3):
        raise FitError("rows of probabilities do not add up to 1", remedy="Give softmax(scores / temperature)")
    at = _suspects(shares, given)
    rows = np.arange(len(shares))
    own, others = shares[rows, given], shares.copy()
    others[rows, given] = -np.inf
    at = at[np.lexsort((at, own[at]))]
    margin = (own[at] - others[at].max(axis=1, initial=0.0) + 1) / 2
    agreed = float((shares.argmax(axis=1) == given).mean()) if len(checked) else 0.0
    return LabelIssues(checked[at], shares[at].argmax(axis=1), own[at], margin, len(checked), agreed)


def _suspects(shares: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return the positions of labels that confident learning calls wrong, and that are not the likeliest."""
    if len(np.unique(given)) < 2:
        return np.array([], dtype=np.int64)
    # It imports pandas, which takes longer than most of what is done here.
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="May not flag all label issues")  # in classes of one row, or none
        wrong = find_label_issues(given, shares, filter_by="prune_by_noise_rate", n_jobs=1)
    return np.flatnonzero(wrong)
