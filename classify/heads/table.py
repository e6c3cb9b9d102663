"""The classifiers that are offered by name."""

from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.svm import LinearSVC

from classify.heads.head import Head, builder
from classify.probe.transforms import TRANSFORMS
from classify.scoring import COSINE_TEMPERATURE

MAX_ITER = 2000
MAX_EPOCHS = 1000
ANY = ("std", *(name for name in TRANSFORMS if name != "std"))
ANGLES = ("l2", "pow")
"""The transforms that end at rows of length 1, whose distances are angles."""


def _logistic(C: float, seed: int, class_weight: str | None) -> Any:
    # scikit-learn holds the gradient of the mean loss against tol: its default of 1e-4 stops far too early.
    return LogisticRegression(
        C=C, solver="lbfgs", tol=1e-6, max_iter=MAX_ITER, class_weight=class_weight, random_state=seed
    )


def _linear_svm(C: float, seed: int, class_weight: str | None) -> Any:
    return LinearSVC(C=C, dual="auto", max_iter=MAX_ITER, class_weight=class_weight, random_state=seed)


def _ridge(alpha: float, seed: int, class_weight: str | None) -> Any:
    return RidgeClassifier(alpha=alpha, class_weight=class_weight, random_state=seed)


def _sgd(alpha: float, seed: int, class_weight: str | None) -> Any:
    # The mean of all steps and not the last: it does not hang on the order of the last rows.
    return SGDClassifier(
        loss="log_loss",
        alpha=alpha,
        tol=1e-4,
        max_iter=MAX_EPOCHS,
        average=True,
        class_weight=class_weight,
        random_state=seed,
    )


def _lda(shrinkage: str, seed: int, class_weight: str | None) -> Any:
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)


def _votes(distances: np.ndarray) -> np.ndarray:
    """Weigh neighbours as DINOv2 does: exp(cosine / 0.07) up to a factor, from distances of unit rows."""
    return np.exp(-(distances**2) / (2 * COSINE_TEMPERATURE))


def _knn(k: int, seed: int, class_weight: str | None) -> Any:
    weights: Any = _votes  # sklearn's stub knows only names
    return KNeighborsClassifier(k, weights=weights, algorithm="brute")


def _centroid(value: None, seed: int, class_weight: str | None) -> Any:
    return NearestCentroid()


def _head(name: str, kind: str, make: Any, *said: Any, transforms: tuple[str, ...] = ANY, **known: Any) -> Head:
    build = builder(name, make, transforms, weighs=known.get("weighs", False))
    return Head(name, kind, build, *said, transforms=transforms, **known)


HEADS = {
    head.name: head
    for head in (
        _head("logistic", "linear", _logistic, "C", (1e-4, 1e-3, 1e-2, 1e-1), (1e-6, 1e3), weighs=True),
        _head("linear-svm", "linear", _linear_svm, "C", (1e-5, 1e-4, 1e-3, 1e-2), (1e-7, 1e2), scale=5.0, weighs=True),
        _head("ridge", "linear", _ridge, "alpha", (1e1, 1e2, 1e3, 1e4), (1e-3, 1e7), 1, 20.0, weighs=True),
        _head("knn", "knn", _knn, "k", (10, 20, 100, 200), None, 1, transforms=ANGLES),
        _head("lda", "linear", _lda, "shrinkage", ("auto",)),
        _head("centroid", "centroid", _centroid, transforms=ANGLES),
        _head("sgd", "linear", _sgd, "alpha", (1e-4, 1e-3, 1e-2, 1e-1), (1e-7, 1e2), 1, weighs=True),
    )
}
