"""What a classifier is here: an ordinary sklearn pipeline, the values to try, its scores and its arrays."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from classify.heads.affine import imported_arrays, linear_arrays, steps_of
from classify.scoring import SCORERS, Arrays, absent_last, model_scores, two_columns
from extract.errors import FitError, OptionError

CLASS_WEIGHTS = (None, "balanced")
DECADE = 10.0


class Build(Protocol):
    """Make an unfitted pipeline, transform inside: no `transform` is the head's first."""

    def __call__(
        self, value: Any, seed: int, *, transform: str | None = None, class_weight: str | None = None
    ) -> Pipeline:
        """Make it for one value; OptionError for a transform or weights that the head does not take."""
        ...


@dataclass(frozen=True)
class Head:
    """One kind of classifier and the one parameter it is tuned by.

    `build(value, seed)` makes the pipeline with every transform inside, which is one of `transforms`; `kind` names its
    formula in `scoring.SCORERS`, and is `imported` where it has none. `stronger` is -1 where a smaller value
    regularises more, +1 where a larger one does. Without `limits` the grid is final; with them `extend` may leave it, a
    decade at a time. `scale` makes scores that are no logits about as wide as logits, for which the bounds of the
    temperature are meant. `weighs` says whether classes can be given weights.
    """

    name: str
    kind: str
    build: Build
    parameter: str = ""
    grid: tuple[Any, ...] = (None,)
    limits: tuple[float, float] | None = None
    stronger: int = -1
    scale: float = 1.0
    transforms: tuple[str, ...] = ()
    weighs: bool = False

    def params(self, value: Any) -> dict[str, Any]:
        """Name the value as metrics and bundles keep it."""
        if isinstance(value, Mapping):
            return dict(value)
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

    def arrays(self, pipeline: Pipeline) -> Arrays:
        """Return what `scoring.SCORERS[kind]` scores rows by, after the row-wise part of the transform; no sklearn.

        An imported head has no such formula: these prepare the rows that its `estimator` takes.
        """
        arrays = ARRAYS[self.kind](pipeline)
        return {name: each * self.scale if name in ("coef", "intercept") else each for name, each in arrays.items()}

    def estimator(self, pipeline: Pipeline) -> Any:
        """Return the fitted classifier alone, which takes rows after the transform."""
        return pipeline[-1]


def builder(
    name: str, make: Callable[[Any, int, str | None], Any], transforms: tuple[str, ...], *, weighs: bool
) -> Build:
    """Put `make(value, seed, class_weight)`, an estimator, behind the steps of a transform; refuse what it cannot."""

    def build(value: Any, seed: int, *, transform: str | None = None, class_weight: str | None = None) -> Pipeline:
        transform = transforms[0] if transform is None else transform
        if transform not in transforms:
            raise OptionError(f"{name} takes no rows in {transform!r}", remedy=f"Take one of {', '.join(transforms)}")
        _check_weight(name, class_weight, weighs)
        return make_pipeline(*steps_of(transform), make(value, seed, class_weight))

    return build


def _check_weight(name: str, class_weight: str | None, weighs: bool) -> None:
    if class_weight not in CLASS_WEIGHTS:
        raise OptionError(f"no class weights {class_weight!r}", remedy="Take 'balanced', or leave it out")
    if class_weight is not None and not weighs:
        raise OptionError(f"{name} cannot weigh classes", remedy="Leave the class weights out, or take logistic")


LIMITED = (LogisticRegression, LinearSVC, RidgeClassifier, SGDClassifier)
"""Whose iterations have a limit that means failure. Others count rounds of boosting so, or warn by themselves."""


def converged(pipeline: Pipeline) -> bool:
    """Say whether the solver stopped before its iteration limit; solvers without one always do."""
    model = pipeline[-1]
    n_iter, limit = getattr(model, "n_iter_", None), getattr(model, "max_iter", None)
    if not isinstance(model, LIMITED) or n_iter is None or limit is None:
        return True
    return bool(np.max(n_iter) < limit)


def pad(scores: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Give each score its class's column: (n, C) for codes `classes` -> (n, n_classes); the absent lose by ABSENT."""
    padded = np.full((len(scores), n_classes), -np.inf)
    padded[:, classes] = scores
    return absent_last(padded)


def _linear_scores(pipeline: Pipeline, X: np.ndarray) -> np.ndarray:
    return two_columns(pipeline.decision_function(X))


def _model_scores(pipeline: Pipeline, X: np.ndarray) -> np.ndarray:
    scores = model_scores(pipeline, X)
    if scores.shape != (len(X), len(pipeline.classes_)):
        said = f"{type(pipeline[-1]).__name__} gives scores of the shape {scores.shape}"
        raise FitError(said, remedy=f"Take a head that gives one for each of {len(pipeline.classes_)} classes")
    return scores


def _centroid_scores(pipeline: Pipeline, X: np.ndarray) -> np.ndarray:
    return SCORERS["centroid"](_centroid_arrays(pipeline), pipeline[:-1].transform(X))


def _knn_arrays(pipeline: Pipeline) -> Arrays:
    model: Any = pipeline[-1]
    # float32 halves a bundle that holds every training row; scores move by 1e-7 of the cosine.
    return {
        "rows": model._fit_X.astype(np.float32),
        "codes": model.classes_[model._y],
        "k": np.array(model.n_neighbors),
    }


def _centroid_arrays(pipeline: Pipeline) -> Arrays:
    model: Any = pipeline[-1]
    return {"centroids": model.centroids_}


SKLEARN_SCORES = {
    "linear": _linear_scores,
    "knn": _model_scores,
    "centroid": _centroid_scores,
    "imported": _model_scores,
}
ARRAYS = {"linear": linear_arrays, "knn": _knn_arrays, "centroid": _centroid_arrays, "imported": imported_arrays}
