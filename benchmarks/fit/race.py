"""GridSearchCV in three settings and our solver, on the same folds in interleaved rounds."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from joblib import Parallel, delayed
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from benchmarks.extract.harness import CORES, watched

FOLDS = 5
PROCESSES = "GridSearchCV, n_jobs=2"

Solve = Callable[[np.ndarray, np.ndarray, list], np.ndarray]
"""Features (n, D), labels (n,) and folds -> scores."""


def solvers(by_sklearn: Callable[..., np.ndarray], by_us: Solve) -> dict[str, Solve]:
    """Name who runs: `by_sklearn(X, y, folds, jobs)` at its defaults, on two processes, on one thread, and ours."""

    def limited(X: np.ndarray, y: np.ndarray, folds: list) -> np.ndarray:
        with threadpool_limits(1):
            return by_sklearn(X, y, folds, 1)

    return {
        "GridSearchCV": lambda X, y, folds: by_sklearn(X, y, folds, None),
        PROCESSES: lambda X, y, folds: by_sklearn(X, y, folds, 2),
        "GridSearchCV, one thread": limited,
        "ours": by_us,
    }


def folds_of(X: np.ndarray, y: np.ndarray) -> list:
    """Make the folds that all share."""
    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y))


def warm_up() -> None:
    """Start joblib's processes, once and before the clock."""
    Parallel(CORES)(delayed(abs)(at) for at in range(CORES))


def interleaved(
    who: Mapping[str, Solve], X: np.ndarray, y: np.ndarray, folds: Sequence, rounds: int
) -> tuple[dict[str, list[float]], dict[str, np.ndarray], float]:
    """Run all in rounds A B C D A B C D: -> seconds of each round, scores, and the most cores that others took."""
    seconds: dict[str, list[float]] = {name: [] for name in who}
    scores, foreign = {}, []
    for _ in range(rounds):
        for name, solve in who.items():
            with watched() as watch:
                scores[name] = solve(X, y, list(folds))
            seconds[name].append(watch.seconds)
            foreign += [] if name == PROCESSES else [watch.foreign_cores]  # processes that stay look like others'
    return seconds, scores, max(foreign)
