"""Ridge: ten penalties on five folds beside GridSearchCV over RidgeClassifier, and leave-one-out beside its own."""

import time

import numpy as np
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.extract.harness import Figures, Goal, Numbers, at_least, ratios, spread, undisturbed
from benchmarks.fit.logistic import CLASSES, post_relu
from benchmarks.fit.race import FOLDS, folds_of, interleaved, solvers, warm_up
from classify.probe.ridge import fold_path, loo_path, targets
from classify.probe.rows import array_rows

ALPHAS = np.logspace(0, 5, 10)
SIZES = ((5_000, 512), (10_000, 512), (1_000, 2_048))
ROUNDS = 3

Scores = np.ndarray
"""Accuracy on each fold of each penalty: (10, 5)."""


def by_sklearn(X: np.ndarray, y: np.ndarray, folds: list, jobs: int | None) -> Scores:
    """Search as users of scikit-learn do, the scaler inside the pipeline."""
    model = make_pipeline(StandardScaler(), RidgeClassifier())
    search = GridSearchCV(model, {"ridgeclassifier__alpha": ALPHAS}, cv=folds, n_jobs=jobs, refit=False)
    results = search.fit(X, y).cv_results_
    return np.stack([results[f"split{fold}_test_score"] for fold in range(FOLDS)], axis=1)


def by_us(X: np.ndarray, y: np.ndarray, folds: list) -> Scores:
    """Judge the whole path by one decomposition a fold."""
    found = fold_path(array_rows(X), targets(y, CLASSES), folds, ALPHAS, "std")
    return np.array([[(codes[test] == y[test]).mean() for _, test in folds] for codes in found.predicted])


SOLVERS = solvers(by_sklearn, by_us)


def ridge(quick: bool) -> Figures:
    """Time ten penalties on five folds, and thirty-one left out row by row."""
    warm_up()
    rows: list[Numbers] = []
    goals: list[Goal] = []
    for n, dims in SIZES[: 1 if quick else None]:
        found, foreign = _race(n, dims, 1 if quick else ROUNDS)
        rows += found
        timings, scores = _goals(n, dims, found)
        goals += [*undisturbed(timings, [foreign]), scores]
    facts = {f"leave-one-out at {n:,} x {dims:,}": _loo(n, dims) for n, dims in SIZES[: 1 if quick else None]}
    note = f"alpha: {ALPHAS[0]:g} to {ALPHAS[-1]:g}, {len(ALPHAS)} values, {FOLDS} folds, {CLASSES} classes, float32."
    return Figures(rows, note, goals, facts)


def _race(n: int, dims: int, rounds: int) -> tuple[list[Numbers], float]:
    X, y = post_relu(n, dims)
    folds = folds_of(X, y)
    seconds, scores, foreign = interleaved(SOLVERS, X, y, folds, rounds)
    return [_row(n, dims, name, seconds, scores) for name in SOLVERS], foreign


def _row(n: int, dims: int, name: str, seconds: dict[str, list[float]], scores: dict[str, Scores]) -> Numbers:
    away = float(np.abs(scores[name] - scores["GridSearchCV"]).max())
    times = ratios(seconds[name], seconds["ours"])
    best = float(scores[name].mean(axis=1).max())
    size = {"n": n, "d": dims}
    return {
        "who": name,
        **size,
        "s": spread(seconds[name]),
        "of_ours": times,
        "best_score": best,
        "scores_off_by": away,
    }


def _goals(n: int, dims: int, rows: list[Numbers]) -> tuple[list[Goal], Goal]:
    """Return what depends on the clock, and what does not."""
    default, *tuned, ours = rows
    best = min(row["of_ours"]["value"] for row in (default, *tuned))
    size, away = f"{n:,} x {dims:,}", ours["scores_off_by"]
    timings = [
        at_least(f"ridge {size}: >= 6x GridSearchCV at its defaults", default["of_ours"]["value"], 6),
        Goal(f"ridge {size}: against GridSearchCV under the best thread limits", f"{best:.2f}x", None),
    ]
    same = "identical" if away == 0 else f"{away:.5f} apart"
    return timings, Goal(f"ridge {size}: identical scores", same, away == 0)


def _loo(n: int, dims: int) -> str:
    """Leave out every row under 31 penalties, beside RidgeClassifierCV under the same."""
    X, y = post_relu(n, dims)
    found = loo_path(array_rows(X), targets(y, CLASSES), "std")
    began = time.perf_counter()
    RidgeClassifierCV(found.lams).fit(StandardScaler().fit_transform(X), y)
    return (
        f"{found.seconds:.2f} s for {len(found.lams)} penalties, RidgeClassifierCV {time.perf_counter() - began:.2f} s"
    )
