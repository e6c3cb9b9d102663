"""How heads are searched and fitted: one file per way, and the table of the heads that have one of their own."""

from classify.heads import Head
from classify.solvers.base import Fitted, Solver, out_of_fold
from classify.solvers.pipeline import Pipelines, check_kept, few_rows
from classify.solvers.ridge import Ridge
from classify.solvers.softmax import Softmax

__all__ = ["SOLVERS", "Fitted", "Pipelines", "Solver", "check_kept", "few_rows", "out_of_fold", "solver_of"]

SOLVERS: dict[str, Solver] = {solver.head: solver for solver in (Softmax(), Ridge())}
"""Heads whose searches share their work; all others are pipelines."""


def solver_of(head: Head, class_weight: str | None = None) -> Solver:
    """Choose how a head is searched; ridge regression with weights of classes is left to scikit-learn."""
    if head.name == "ridge" and class_weight is not None:
        return Pipelines(head)
    return SOLVERS.get(head.name) or Pipelines(head)
