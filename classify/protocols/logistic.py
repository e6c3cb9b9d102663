"""Multinomial logistic regression by L-BFGS, set up so that scikit-learn of today does what the published code did."""

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from classify.heads.affine import linear_arrays
from classify.probe.linear import Linear
from classify.protocols.measure import measure, score
from classify.protocols.parts import Parts
from classify.protocols.protocol import Options, ProtocolData, ProtocolResult
from extract.progress import Progress

SUM_TOL = 1e-4
"""scikit-learn's default then, of the gradient of the SUM of losses; today tol is of the mean."""


@dataclass(frozen=True)
class Solver:
    """How the published code sets the solver. No `tol` is SUM_TOL over the rows.

    `pairs`: two classes have a weight vector each, both of them penalised, which is one vector at twice the C. `warm`:
    each fit starts from where the last one ended.
    """

    max_iter: int
    tol: float | None = None
    pairs: bool = False
    warm: bool = False

    def model(self) -> LogisticRegression:
        """Make the estimator that every setting is fitted with, one after the other."""
        return LogisticRegression(solver="lbfgs", max_iter=self.max_iter, warm_start=self.warm, random_state=0)

    def fit(self, model: LogisticRegression, X: np.ndarray, y: np.ndarray, C: float) -> bool:
        """Fit X (n, D) float64; say whether the solver came to its end."""
        classes = np.unique(y)
        double = 2 if self.pairs and len(classes) == 2 else 1
        model.set_params(C=C * double, tol=SUM_TOL / len(y) if self.tol is None else self.tol)
        if hasattr(model, "classes_") and not np.array_equal(model.classes_, classes):
            del model.coef_  # of other classes: nothing to start from
        return fit_noted(model, X, y)


def fit_noted(model: Any, X: np.ndarray, y: np.ndarray) -> bool:
    """Fit, and say whether the solver came to its end; all warnings but of that are passed on."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model.fit(X, y)
    others = [warning for warning in seen if not issubclass(warning.category, ConvergenceWarning)]
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return len(others) == len(seen)


@dataclass(frozen=True)
class Probe:
    """Fits settings on one part of the training rows X (n, D) float64, then the best one on all of them."""

    data: ProtocolData
    X: np.ndarray
    solver: Solver
    model: LogisticRegression
    metric: str
    seed: int

    def along(self, grid: Iterable[float], parts: Parts, progress: Progress) -> list[dict[str, Any]]:
        """Try each C of a grid in its order."""
        tried = []
        for C in grid:
            tried.append(self.try_C(float(C), parts))
            progress.advance(1)
        return tried

    def try_C(self, C: float, parts: Parts) -> dict[str, Any]:  # noqa: N802 C is the field's name
        """Fit with C: -> C, its score, whether the solver converged, seconds."""
        started, y = time.perf_counter(), self.data.y_train
        fine = self.solver.fit(self.model, self.X[parts.train], y[parts.train], C)
        predicted = np.asarray(self.model.predict(self.X[parts.val]))
        found = score(y[parts.val], predicted, self.metric)
        return {"C": C, "score": found, "converged": fine, "seconds": round(time.perf_counter() - started, 4)}

    def conclude(self, C: float, tried: Sequence[dict[str, Any]], notes: Sequence[str]) -> ProtocolResult:
        """Fit all training rows with C, and measure on the test rows."""
        fine = self.solver.fit(self.model, self.X, self.data.y_train, C)
        linear = linear_of(self.model)
        scores = linear.scores(self.data.X_test.astype(np.float64))
        predicted = scores.argmax(axis=1)
        value = measure(self.data, predicted, self.metric, self.seed)
        said = [*notes, *doubts(tried, C, fine)]
        return ProtocolResult(self.metric, value, {"C": C}, list(tried), predicted, scores, linear, notes=said)


def make_probe(data: ProtocolData, solver: Solver, options: Options, seed: int) -> Probe:
    """Take the training rows in float64, in which the published solvers compute."""
    return Probe(data, data.X_train.astype(np.float64), solver, solver.model(), str(options.metric), seed)


def first_best(tried: Sequence[dict[str, Any]]) -> float:
    """Return the C that scored best, of equals the one that was tried first."""
    return max(tried, key=lambda row: row["score"])["C"]


def doubts(tried: Sequence[dict[str, Any]], best: float, fine: bool) -> list[str]:
    """Say what makes the choice of C less sure: solvers that did not come to their end, and an edge of the grid."""
    said = []
    if unfinished := sum(not row["converged"] for row in tried):
        said.append(f"{unfinished} of {len(tried)} settings did not converge within the published iterations")
    if not fine:
        said.append("the fit that is kept did not converge within the published iterations")
    grid = [row["C"] for row in tried]
    if len(grid) > 1 and best in (min(grid), max(grid)):
        said.append(f"C = {best:.3g} is at the edge of the published grid: a better one may lie beyond")
    return said


def linear_of(model: LogisticRegression) -> Linear:
    """Return a fitted model as arrays, two classes with a row each."""
    return Linear(**linear_arrays(make_pipeline(model)))
