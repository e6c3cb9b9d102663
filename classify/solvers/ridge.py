"""Ridge classifiers: fold Grams by subtraction, one decomposition per fold for all penalties."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from classify.folds import Folds
from classify.heads import HEADS
from classify.probe.ridge import fit_ridge, fold_path, targets
from classify.probe.rows import subset
from classify.scoring import absent_last
from classify.solvers.base import Fitted, fitted_linear
from classify.trials import Candidate, Task, Trial
from extract.progress import Progress

SCALE = HEADS["ridge"].scale
"""What makes its scores about as wide as logits."""


@dataclass(frozen=True)
class Ridge:
    """The head `ridge`."""

    head: str = "ridge"
    transforms: tuple[str, ...] = ("std", "l2", "pow", "pcaw")

    def refine(self, task: Task, candidate: Candidate, progress: Progress) -> list[Trial]:
        """Try the whole path of penalties by cross-validation."""
        progress.start(f"fit {candidate.name}", 1)
        rows = task.read(candidate.layers, candidate.transform)
        path = fold_path(rows, targets(task.y, task.n_classes), task.folds, None, candidate.transform, task.device)
        progress.advance(1)
        values = task.values(path.predicted)
        edge = {0, len(values) - 1} if (values == values.max()).sum() == 1 else set()
        return [
            Trial(
                candidate,
                self.head,
                {"alpha": float(lam)},
                codes,
                task.judge(codes),
                path.seconds / len(path.lams),
                how=path.kind,
                at_limit=at in edge and at == int(values.argmax()),
                strength=float(lam),
            )
            for at, (lam, codes) in enumerate(zip(path.lams, path.predicted, strict=True))
        ]

    def scores(self, task: Task, candidate: Candidate, params: dict[str, Any], splits: Folds) -> list[np.ndarray]:
        """Fit on the first rows of each split and score the second: -> one (len(test), C) float64 for each."""
        rows, Y = task.read(candidate.layers, candidate.transform), targets(task.y, task.n_classes)
        heads = (
            fit_ridge(subset(rows, train), Y[train], params["alpha"], candidate.transform, task.device)
            for train, _ in splits
        )
        return [
            SCALE * absent_last(np.concatenate([head.scores(block) for _, block in subset(rows, test).blocks()]))
            for head, (_, test) in zip(heads, splits, strict=True)
        ]

    def fit(self, task: Task, candidate: Candidate, params: dict[str, Any]) -> Fitted:
        """Fit on all rows."""
        rows, Y = task.read(candidate.layers, candidate.transform), targets(task.y, task.n_classes)
        found = fit_ridge(rows, Y, params["alpha"], candidate.transform, task.device)
        return fitted_linear(found, rows, True, SCALE)
