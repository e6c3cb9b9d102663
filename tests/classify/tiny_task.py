"""Tasks of numbers: what solvers and the search work on, without a feature set."""

import numpy as np

from classify.evaluate import draw_resamples
from classify.folds import Part, make_folds
from classify.probe.rows import Rows, array_rows
from classify.probe.transforms import rowwise
from classify.scoring import join
from classify.trials import Candidate, Task


def tiny_task(
    y: np.ndarray, taps: dict[str, np.ndarray], groups: np.ndarray | None = None, cv: int = 4, **known
) -> Task:
    def read(layers: tuple[str, ...], transform: str) -> Rows:
        return array_rows(rowwise(transform, join([taps[layer] for layer in layers])))

    folds, _ = make_folds(Part(np.arange(len(y)), y, groups), cv, 0)
    given = {"metric": "accuracy", "n_classes": int(y.max()) + 1, **known}
    return Task(y=y, groups=groups, folds=folds, resamples=draw_resamples(len(y), groups, 0), read=read, **given)


def candidate(X: np.ndarray, transform: str = "std", layer: str = "tap") -> Candidate:
    return Candidate((layer,), transform, X.shape[1], 0)
