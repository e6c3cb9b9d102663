"""Logistic regression: ten C on five folds beside GridSearchCV, and one fit of many wide rows."""

import time

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.extract.harness import CORES, Figures, Goal, Numbers, at_least, ratios, spread, undisturbed, watched
from benchmarks.fit.race import FOLDS, folds_of, interleaved, solvers, warm_up
from classify.probe.moments import scalers
from classify.probe.objective import Asked
from classify.probe.rows import array_rows
from classify.probe.softmax import Ends, fit_softmax
from classify.probe.solutions import out_of_fold_codes
from classify.solvers.softmax import SEARCH_TOL

GRID = np.logspace(-5, -0.5, 10).tolist()
"""Beyond, sklearn stops long before the optimum at its tolerance, and scores are those of where it stopped."""
DIMS, CLASSES = 512, 10
SIZES = (5_000, 10_000)
ROUNDS = 3
LARGE = (50_000, 2_048)
REFERENCE_TOL = 1e-7
SCORES_WITHIN = 0.001
LARGE_S = 10.0

Scores = np.ndarray
"""Mean accuracy over folds of each C: (10,)."""


def post_relu(n: int, dims: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make features as a ConvNet's: positive, sparse, going together, classes that overlap -> X (n, dims), y (n,)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n)
    loadings = rng.normal(size=(64, dims)) * np.geomspace(1, 0.1, 64)[:, None]
    hidden = rng.normal(size=(CLASSES, 64))[y] * 0.35 + rng.normal(size=(n, 64))
    X = hidden.astype(np.float32) @ loadings.astype(np.float32)
    X += rng.normal(size=(n, dims)).astype(np.float32)
    return np.maximum(X - 0.5, 0, out=X), y


def by_sklearn(X: np.ndarray, y: np.ndarray, folds: list, jobs: int | None, tol: float = 1e-4) -> Scores:
    """Search as users of scikit-learn do: the scaler inside the pipeline, its own tolerance."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, tol=tol))
    search = GridSearchCV(model, {"logisticregression__C": GRID}, cv=folds, n_jobs=jobs, refit=False)
    return search.fit(X, y).cv_results_["mean_test_score"]


def by_us(X: np.ndarray, y: np.ndarray, folds: list) -> Scores:
    """Fit all fifty problems at once, scalers included."""
    rows = array_rows(X)
    outside = np.zeros((FOLDS, len(y)), bool)
    for fold, (_, test) in enumerate(folds):
        outside[fold, test] = True
    problems = [(fold, C) for C in GRID for fold in range(FOLDS)]
    fitted = scalers(rows, ~outside, "std")
    found = fit_softmax(Asked(rows, y, ~outside, fitted, CLASSES), problems, Ends(SEARCH_TOL))
    codes = out_of_fold_codes(rows, found, outside)
    return np.array([np.mean([(codes[C][test] == y[test]).mean() for _, test in folds]) for C in GRID])


SOLVERS = solvers(by_sklearn, by_us)


def logistic(quick: bool) -> Figures:
    """Time ten C on five folds."""
    warm_up()
    rows: list[Numbers] = []
    goals: list[Goal] = []
    for n in SIZES[: 1 if quick else None]:
        found, foreign = _race(n, 1 if quick else ROUNDS)
        rows += found
        goals += undisturbed(_goals(n, found), [foreign])
    note = (
        f"{len(GRID)} C from {GRID[0]:g} to {GRID[-1]:.3g}, {FOLDS} folds, d = {DIMS}, {CLASSES} classes; tol 1e-4 for "
        f"sklearn and {SEARCH_TOL:g} for us: at 1e-4 both miss converged scores by more than {SCORES_WITHIN:g}. (`fit` "
        "asks for smaller gradients still where C is large.) `scores off by`: the largest distance of a mean score "
        f"from that of GridSearchCV in float64 at tol {REFERENCE_TOL:g}."
    )
    return Figures(rows, note, goals)


def _race(n: int, rounds: int) -> tuple[list[Numbers], float]:
    X, y = post_relu(n, DIMS)
    folds = folds_of(X, y)
    reference = by_sklearn(X.astype(np.float64), y, folds, CORES, REFERENCE_TOL)
    seconds, scores, foreign = interleaved(SOLVERS, X, y, folds, rounds)
    found = [{"n": n, **_row(name, seconds, scores, reference)} for name in SOLVERS]
    return found, foreign


def _row(name: str, seconds: dict[str, list[float]], scores: dict[str, Scores], reference: Scores) -> Numbers:
    return {
        "who": name,
        "s": spread(seconds[name]),
        "of_ours": ratios(seconds[name], seconds["ours"]),
        "best_score": float(scores[name].max()),
        "scores_off_by": float(np.abs(scores[name] - reference).max()),
    }


def _goals(n: int, rows: list[Numbers]) -> list[Goal]:
    default, *tuned, ours = rows
    best = min(row["of_ours"]["value"] for row in tuned)
    return [
        at_least(f"n={n}: >= 10x GridSearchCV at its defaults", default["of_ours"]["value"], 10),
        at_least(f"n={n}: >= 3x GridSearchCV under the best thread limits", best, 3),
        Goal(
            f"n={n}: scores within {SCORES_WITHIN} of GridSearchCV's, converged",
            f"{ours['scores_off_by']:.5f}",
            ours["scores_off_by"] <= SCORES_WITHIN,
        ),
    ]


def logistic_large(quick: bool) -> Figures:
    """Time one fit of many wide rows."""
    n, dims = (LARGE[0] // 10, LARGE[1]) if quick else LARGE
    X, y = post_relu(n, dims)
    rows, every, found = array_rows(X), np.ones((1, n), bool), []
    with watched() as watch:
        for C in (1e-3, 1e-1, 10.0):
            began = time.perf_counter()
            fitted = scalers(rows, every, "std")
            fit = fit_softmax(Asked(rows, y, every, fitted, CLASSES), [(0, C)])
            seconds = time.perf_counter() - began
            found.append(
                {"C": C, "s": round(seconds, 2), "steps": int(fit.n_iter[0]), "converged": bool(fit.converged[0])}
            )
    slowest = max(row["s"] for row in found)
    goal = Goal(f"{n:,} x {dims:,} x {CLASSES}: under {LARGE_S:g} s a fit", f"{slowest} s", slowest < LARGE_S)
    return Figures(
        found, f"{n:,} rows of {dims:,}, scalers included, tol 1e-4.", undisturbed([goal], [watch.foreign_cores])
    )
