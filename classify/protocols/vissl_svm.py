"""VISSL's linear SVMs, one for each class (vissl/utils/svm_utils): squared hinge, dual, rows of length 1, mean AP.

The cost of each class is chosen by cross-validation in 3 folds. Low-shot, it is chosen as published: the one cost whose
mean over the draws is best on the test rows.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from classify.evaluate import draw_resamples
from classify.probe.linear import Linear
from classify.protocols.draws import draw_shots, too_few
from classify.protocols.logistic import fit_noted
from classify.protocols.measure import mean_ap, mean_average_precision, over_draws
from classify.protocols.protocol import Options, Protocol, ProtocolData, ProtocolResult
from extract.errors import FitError
from extract.progress import Progress

METRIC = "mean_average_precision"
COSTS = (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0)
FOLDS = 3
LENGTH_MARGIN = 1e-5
OPTIMISTIC = "low-shot, the cost is the best on the test images, as published: the figure is optimistic"


def normalise(X: np.ndarray) -> np.ndarray:
    """Scale rows as published, x / (||x|| + 1e-5): (n, D) -> (n, D) float64."""
    X = X.astype(np.float64)
    return X / (np.linalg.norm(X, axis=1, keepdims=True) + LENGTH_MARGIN)


@dataclass(frozen=True)
class Svms:
    """The SVMs of all classes on rows Z (n, D) of about length 1, labels y (n,) codes of `n_classes`."""

    Z: np.ndarray
    y: np.ndarray
    n_classes: int
    seed: int

    def make(self, cost: float) -> LinearSVC:
        """Make the SVM of one class, of labels 1 and -1; a positive row counts twice."""
        dual: Any = True  # sklearn's stub knows only names
        return LinearSVC(
            C=cost,
            class_weight={1: 2, -1: 1},
            penalty="l2",
            loss="squared_hinge",
            tol=1e-4,
            dual=dual,
            max_iter=2000,
            random_state=self.seed,
        )

    def signs(self, code: int) -> np.ndarray:
        """Label the rows of a class 1 and all others -1: (n,) int64."""
        return np.where(self.y == code, 1, -1)

    def judge(self, code: int, cost: float) -> dict[str, Any]:
        """Cross-validate the SVM of a class: its mean average precision over the folds, 0 in one without its rows."""
        labels, found, fine = self.signs(code), [], True
        for train, test in _folds(labels):
            svm = self.make(cost)
            fine &= fit_noted(svm, self.Z[train], labels[train])
            hits = labels[test] == 1
            scores = svm.decision_function(self.Z[test])
            found.append(float(average_precision_score(hits, scores)) if hits.any() else 0.0)
        return {"cost": cost, "score": float(np.mean(found)) if found else 0.0, "converged": fine}

    def fit(self, costs: Sequence[float]) -> tuple[Linear, int]:
        """Fit each class with its cost: -> all as one linear head, and how many did not converge."""
        svms, unfinished = [self.make(cost) for cost in costs], 0
        for code, svm in enumerate(svms):
            unfinished += not fit_noted(svm, self.Z, self.signs(code))
        coef, intercept = np.concatenate([svm.coef_ for svm in svms]), np.concatenate([svm.intercept_ for svm in svms])
        width = coef.shape[1]
        return Linear(np.zeros(width), np.ones(width), coef, intercept), unfinished


def _folds(labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut rows into 3 folds, stratified, in their order; no folds where one would have to learn from one class."""
    positive = int((labels == 1).sum())
    if min(positive, len(labels) - positive) < 2:
        return []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # its fold counts as 0, as published
        return list(StratifiedKFold(FOLDS).split(labels, labels))


def follow(data: ProtocolData, seed: int, options: Options, progress: Progress) -> ProtocolResult:
    """Follow the full protocol, or the low-shot one where a number of images a class is asked for."""
    if len(data.y_train) < 2 * FOLDS:
        raise FitError(f"{len(data.y_train)} images for {FOLDS} folds", remedy="Give more images")
    if not np.isin(data.y_test, np.arange(len(data.classes))).any():
        raise FitError("no test image is of a class that was learned", remedy="Give test images of the same classes")
    svms = Svms(normalise(data.X_train), data.y_train, len(data.classes), seed)
    if options.shots is None:
        return _full(data, svms, progress)
    return _low_shot(data, svms, options.shots, options.draws, progress)


def _full(data: ProtocolData, svms: Svms, progress: Progress) -> ProtocolResult:
    """Choose the cost of each class, of equals the smallest; fit it on all training rows, and measure on the test."""
    tried, costs = [], []
    progress.start("vissl-svm", len(data.classes))
    for code, name in enumerate(data.classes):
        found = [svms.judge(code, cost) for cost in COSTS]
        costs.append(max(found, key=lambda row: row["score"])["cost"])
        tried += [{"class": name, **row} for row in found]
        progress.advance(1)
    linear, unfinished = svms.fit(costs)
    scores = linear.scores(normalise(data.X_test))
    resamples = draw_resamples(len(data.y_test), data.groups_test, svms.seed)
    value = mean_average_precision(_targets(data), scores, resamples)
    params = {"cost": dict(zip(data.classes, costs, strict=True))}
    notes = _notes(data, tried, unfinished) + _rare(data)
    return ProtocolResult(METRIC, value, params, tried, scores.argmax(axis=1), scores, linear, "l2", notes)


def _low_shot(data: ProtocolData, svms: Svms, shots: int, draws: int, progress: Progress) -> ProtocolResult:
    """Draw, fit and test with every cost: the mean over draws of the best cost."""
    Z_test, targets = normalise(data.X_test), _targets(data)
    found, unfinished, heads = np.empty((draws, len(COSTS))), np.zeros(len(COSTS), dtype=int), []
    progress.start("vissl-svm", draws)
    for draw in range(draws):
        rows = draw_shots(data.y_train, shots, svms.seed + draw)
        drawn = Svms(svms.Z[rows], svms.y[rows], svms.n_classes, svms.seed)
        for at, cost in enumerate(COSTS):
            linear, failed = drawn.fit([cost] * svms.n_classes)
            found[draw, at], unfinished[at] = mean_ap(targets, linear.scores(Z_test)), unfinished[at] + failed
            heads += [linear] if draw == 0 else []
        progress.advance(1)
    best = int(found.mean(axis=0).argmax())
    tried = [
        {"cost": cost, "score": float(found[:, at].mean()), "converged": not unfinished[at]}
        for at, cost in enumerate(COSTS)
    ]
    scores, params = heads[best].scores(Z_test), {"cost": COSTS[best], "shots": shots, "draws": draws}
    kept = f"the head that is kept is of the first draw, by seed {svms.seed}"
    notes = [OPTIMISTIC, kept, *too_few(data.y_train, shots, data.classes), *_notes(data, tried, 0)]
    value = over_draws(found[:, best].tolist())
    return ProtocolResult(METRIC, value, params, tried, scores.argmax(axis=1), scores, heads[best], "l2", notes)


def _targets(data: ProtocolData) -> np.ndarray:
    return data.y_test[:, None] == np.arange(len(data.classes))


def _notes(data: ProtocolData, tried: list[dict[str, Any]], unfinished: int) -> list[str]:
    said = []
    if failed := sum(not row["converged"] for row in tried):
        said.append(f"{failed} of {len(tried)} settings did not converge within the published iterations")
    if unfinished:
        said.append(f"{unfinished} of the SVMs that are kept did not converge within the published iterations")
    if gone := int((~_targets(data).any(axis=0)).sum()):
        said.append(f"{gone} of {len(data.classes)} classes have no test image: the mean is over the others")
    return said


def _rare(data: ProtocolData) -> list[str]:
    counts = np.bincount(data.y_train, minlength=len(data.classes))
    few = int((counts < FOLDS).sum())
    words = f"{few} classes have fewer than {FOLDS} images: the folds without count as 0"
    return [f"{words}, and a single image takes the smallest cost"] if few else []


VISSL_SVM = Protocol(
    "vissl-svm",
    "a linear SVM for each class on rows of length 1, its cost by 3-fold cross-validation; mean average precision",
    "Goyal, Mahajan, Gupta, Misra: Scaling and Benchmarking Self-Supervised Visual Representation Learning. ICCV 2019 "
    "(vissl/utils/svm_utils)",
    follow,
    metrics=(METRIC,),
    shots=True,
)
