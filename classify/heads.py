"""The classifiers on top: each an ordinary sklearn pipeline, the values to try, its arrays."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from classify.scoring import COSINE_TEMPERATURE, SCORERS, VOTE_FLOOR

MAX_ITER = 2000
DECADE = 10.0
ABSENT = 10.0
"""How far below a row's lowest score a class lies that the training rows did not hold."""


@dataclass(frozen=True)
class Head:
    """One kind of classifier and the one parameter it is tuned by.

    `build(value, seed)` makes the pipeline with every transform inside; `kind` names its formula in `scoring.SCORERS`.
    `stronger` is -1 where a smaller value regularises more, +1 where a larger one does. Without `limits` the grid is
    final; with them `extend` may leave it, a decade at a time. `scale` makes scores that are no logits about as wide as
    logits, for which the bounds of the temperature are meant.
    """

    name: str
    kind: str
    build: Callable[[Any, int], Pipeline]
    parameter: str = ""
    grid: tuple[Any, ...] = (None,)
    limits: tuple[float, float] | None = None
    stronger: int = -1
    scale: float = 1.0

    def params(self, value: Any) -> dict[str, Any]:
        """Name the value as metrics and bundles keep it."""
        return {self.parameter: value} if self.parameter else {}

    def strength(self, value: Any) -> float:
        """Order values by how much they regularise; only comparisons within one head mean anything."""
        return self.stronger * value if isinstance(value, int | float) else 0.0

    def values(self, n_rows: int) -> list[Any]:
        """Return the start grid, neighbour counts capped to the rows that the smallest fold trains on."""
        if self.kind != "knn":
            return list(self.grid)
        return sorted({min(int(k), max(1, n_rows - 1)) for k in self.grid})

    def extend(self, tried: Sequence[Any], best: Any) -> list[Any]:
        """Return the next value beyond the edge of `tried` that `best` sits at, or nothing."""
        if self.limits is None or best not in (min(tried), max(tried)):
            return []
        step = 1 if best == max(tried) else -1
        value = DECADE ** (round(math.log10(best)) + step)
        return [value] if self.limits[0] * 0.99 <= value <= self.limits[1] * 1.01 else []

    def at_limit(self, tried: Sequence[Any], best: Any) -> bool:
        """Say whether `best` is an edge that may not be passed, so that a better value may lie beyond."""
        return self.limits is not None and best in (min(tried), max(tried)) and not self.extend(tried, best)

    def scores(self, pipeline: Pipeline, X: np.ndarray) -> np.ndarray:
        """Score each class known to the pipeline: X (n, D) -> (n, C), columns as its classes_."""
        return SKLEARN_SCORES[self.kind](pipeline, X) * self.scale

    def arrays(self, pipeline: Pipeline) -> dict[str, np.ndarray]:
        """Return what `scoring.SCORERS[kind]` needs to score without sklearn."""
        arrays = ARRAYS[self.kind](pipeline)
        return {name: each * self.scale if name in ("coef", "intercept") else each for name, each in arrays.items()}


def converged(pipeline: Pipeline) -> bool:
    """Say whether the solver stopped before its iteration limit; solvers without one always do."""
    n_iter, limit = getattr(pipeline[-1], "n_iter_", None), getattr(pipeline[-1], "max_iter", None)
    return n_iter is None or limit is None or bool(np.max(n_iter) < limit)


def pad(scores: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Give each score its class's column: (n, C) for codes `classes` -> (n, n_classes); the absent lose by ABSENT."""
    padded = np.repeat(scores.min(axis=1, keepdims=True) - ABSENT, n_classes, axis=1)
    padded[:, classes] = scores
    return padded


def _logistic(value: float, seed: int) -> Pipeline:
    model = LogisticRegression(C=value, solver="lbfgs", tol=1e-6, max_iter=MAX_ITER, random_state=seed)
    return make_pipeline(StandardScaler(), model)


def _linear_svm(value: float, seed: int) -> Pipeline:
    return make_pipeline(StandardScaler(), LinearSVC(C=value, dual="auto", max_iter=MAX_ITER, random_state=seed))


def _ridge(value: float, seed: int) -> Pipeline:
    return make_pipeline(StandardScaler(), RidgeClassifier(alpha=value, random_state=seed))


def _lda(value: str, seed: int) -> Pipeline:
    return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=value))


def _votes(distances: np.ndarray) -> np.ndarray:
    """Weigh neighbours as DINOv2 does: exp(cosine / 0.07) up to a factor, from distances of unit rows."""
    return np.exp(-(distances**2) / (2 * COSINE_TEMPERATURE))


def _knn(value: int, seed: int) -> Pipeline:
    weights: Any = _votes  # sklearn's stub knows only names
    return make_pipeline(Normalizer(), KNeighborsClassifier(value, weights=weights, algorithm="brute"))


def _centroid(value: None, seed: int) -> Pipeline:
    return make_pipeline(Normalizer(), NearestCentroid())


def _linear_scores(pipeline: Pipeline, X: np.ndarray) -> np.ndarray:
    decision = pipeline.decision_function(X)
    # Half each way, so that the softmax of the two is the sigmoid of the one.
    return np.stack([-decision / 2, decision / 2], axis=1) if decision.ndim == 1 else decision


def _knn_scores(pipeline: Pipeline, X: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(pipeline.predict_proba(X), VOTE_FLOOR))


def _centroid_scores(pipeline: Pipeline, X: np.ndarray) -> np.ndarray:
    return SCORERS["centroid"](_centroid_arrays(pipeline), X)


def _linear_arrays(pipeline: Pipeline) -> dict[str, np.ndarray]:
    scaler: Any = pipeline[0]
    model: Any = pipeline[-1]
    coef, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
    return {"mean": scaler.mean_, "scale": scaler.scale_, "coef": coef, "intercept": intercept}


def _knn_arrays(pipeline: Pipeline) -> dict[str, np.ndarray]:
    model: Any = pipeline[-1]
    # float32 halves a bundle that holds every training row; scores move by 1e-7 of the cosine.
    return {
        "rows": model._fit_X.astype(np.float32),
        "codes": model.classes_[model._y],
        "k": np.array(model.n_neighbors),
    }


def _centroid_arrays(pipeline: Pipeline) -> dict[str, np.ndarray]:
    model: Any = pipeline[-1]
    return {"centroids": model.centroids_}


SKLEARN_SCORES = {"linear": _linear_scores, "knn": _knn_scores, "centroid": _centroid_scores}
ARRAYS = {"linear": _linear_arrays, "knn": _knn_arrays, "centroid": _centroid_arrays}

HEADS = {
    head.name: head
    for head in (
        Head("logistic", "linear", _logistic, "C", (1e-4, 1e-3, 1e-2, 1e-1), (1e-6, 1e3)),
        Head("linear-svm", "linear", _linear_svm, "C", (1e-5, 1e-4, 1e-3, 1e-2), (1e-7, 1e2), scale=5.0),
        Head("ridge", "linear", _ridge, "alpha", (1e1, 1e2, 1e3, 1e4), (1e-3, 1e7), stronger=1, scale=20.0),
        Head("knn", "knn", _knn, "k", (5, 10, 20, 100), stronger=1),
        Head("lda", "linear", _lda, "shrinkage", ("auto",)),
        Head("centroid", "centroid", _centroid),
    )
}
