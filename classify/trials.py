"""What is compared: configurations, the data that all are judged on, and what each turned out to be worth."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from classify.evaluate import Resamples, evaluate, values_of
from classify.folds import Folds
from classify.probe.memo import Kept
from classify.probe.rows import Rows


@dataclass(frozen=True)
class Candidate:
    """Rows that a head may be put on: taps, several of them side by side, and a transform. `depth` orders taps."""

    layers: tuple[str, ...]
    transform: str
    dims: int
    depth: int

    @property
    def name(self) -> str:
        """The taps in one word, as tables show them."""
        return " + ".join(self.layers)


@dataclass(frozen=True)
class Trial:
    """One configuration: `predicted` (n,) codes out of fold, and what they are worth.

    `stage` is scan, where `head` is always ridge, or refine. `strength` orders the values of one head by how much they
    regularise. `how` says in words how it was judged; `tried` (m, n) are the predictions of all penalties that it is
    the best of, and `unit` the first of these penalties.
    """

    candidate: Candidate
    head: str
    params: dict[str, Any]
    predicted: np.ndarray
    metrics: dict[str, dict[str, float]]
    seconds: float
    stage: str = "refine"
    how: str = ""
    converged: bool = True
    at_limit: bool = False
    strength: float = 0.0
    tried: np.ndarray | None = None
    unit: float = 1.0


@dataclass(frozen=True)
class Task:
    """What all configurations of one search share: labels y (n,), folds, draws, and `read(layers, transform)`.

    `read` gives the rows after the row-wise part of the transform. `class_weight` is None or "balanced". `kept`
    has what earlier fits found of these rows. Fits of scikit-learn go to Ray where `ray` says so.
    """

    y: np.ndarray
    groups: np.ndarray | None
    folds: Folds
    resamples: Resamples
    n_classes: int
    metric: str
    read: Callable[[tuple[str, ...], str], Rows]
    seed: int = 0
    jobs: int = 1
    device: str = "cpu"
    class_weight: str | None = None
    kept: Kept = field(default_factory=Kept)
    ray: bool = False

    def __len__(self) -> int:
        return len(self.y)

    def bare(self) -> "Task":
        """Return what a fit has to know, so little that it can be sent to another machine: no rows are read by it."""
        no_draws = Resamples(np.empty(0, np.int64), np.empty((0, 0), np.float32), grouped=False)
        return replace(self, groups=None, folds=[], resamples=no_draws, read=_unread, kept=Kept())

    def judge(self, predicted: np.ndarray) -> dict[str, dict[str, float]]:
        """Measure predictions by every metric, with intervals: (n,) codes -> {metric: {value, low, high}}."""
        return evaluate(self.y, predicted, self.resamples)

    def values(self, predicted: np.ndarray) -> np.ndarray:
        """Measure many predictions by the metric of the search alone: (m, n) codes -> (m,)."""
        return values_of(self.y, predicted)[self.metric]


def _unread(layers: tuple[str, ...], transform: str) -> Rows:
    raise AssertionError("the rows were read elsewhere", layers, transform)
