"""Features -> a classifier of several labels an image, with its evidence: what `fit --multi-label` does."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.evaluate import draw_resamples
from classify.multilabel.data import MultiData
from classify.multilabel.decide import decide
from classify.multilabel.evidence import Evidence, describe, harder, measure, predicted_rows
from classify.multilabel.ranking import FORMS
from classify.multilabel.search import refit, search
from classify.multilabel.split import make_folds
from classify.multilabel.trial import Task, Trial
from classify.probe.linear import Linear
from classify.probe.memory import plan_memory
from classify.probe.rows import read_rows
from extract.errors import OptionError, unknown
from extract.progress import Progress, Silent

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

TRANSFORMS = ("std", "l2", "pow")
"""Those that a shift and a scale for each feature carries out; whitening mixes them."""
FIRST_POINTS = 7
"""Values of C that are fitted at once."""


@dataclass(frozen=True)
class MultiSpec:
    """How to fit: taps (none: all pooled ones), transforms, folds, seed, the form of AP of `ranking.FORMS`, device."""

    layers: tuple[str, ...] = ()
    transforms: tuple[str, ...] = TRANSFORMS
    cv: int = 5
    seed: int = 0
    ap: str = "area"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for transform in self.transforms:
            if transform not in TRANSFORMS:
                unknown("transform for several labels", transform, TRANSFORMS, OptionError)
        if self.ap not in FORMS:
            unknown("form of average precision", self.ap, FORMS, OptionError)
        if self.cv < 2 or not self.transforms:
            said = f"cv={self.cv}, transforms={self.transforms}"
            raise OptionError(said, remedy="Take 2 folds and 1 transform or more")


@dataclass(frozen=True, eq=False)
class MultiFit:
    """What a fit gives: all that a bundle of the task "multi" needs, the content of metrics.json, and the predictions.

    `linear` scores rows of `layers`, joined, after the map of `transform`; its sigmoid is the probability, temperatures
    being in it. `scores` (n_test, k) are those of the test rows, `predictions` a row for each of them.
    """

    layers: tuple[str, ...]
    transform: str
    params: dict[str, float]
    classes: list[str]
    linear: Linear
    thresholds: np.ndarray
    scores: np.ndarray
    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]


def fit_multilabel(
    features: "FeatureSet", data: MultiData, spec: MultiSpec, progress: Progress | None = None
) -> MultiFit:
    """Search, decide, refit and test: features and what `read_multilabel` made of their labels -> head and evidence."""
    train, layers = data.train, _layers(features, spec)
    folds, said = make_folds(train.Y, train.groups, spec.cv, spec.seed)
    resamples = draw_resamples(len(train), train.groups, spec.seed)
    plan = plan_memory(len(train), _dims(features, layers, train.rows), len(data.classes), len(folds) * FIRST_POINTS)
    task = Task(features, train, folds, resamples, spec.ap, plan.room_bytes, spec.device)
    found = search(task, layers, spec.transforms, progress or Silent())
    decisions = decide(found.best.scores, train.Y, resamples)
    head, fine = refit(task, found.best)
    scores = _scores(task, found.best, head, data.test.rows)
    evidence = Evidence(task, data, found, decisions, scores, spec.seed)
    metrics = describe(evidence) | measure(evidence)
    metrics["warnings"] = data.warnings + said + metrics["warnings"] + harder(metrics)
    metrics["notes"] = [plan.words, *metrics["notes"]]
    if not fine:
        metrics["warnings"].append("the last fit, on all training images, did not converge")
    return _result(evidence, decisions.calibrated(head), metrics)


def _layers(features: "FeatureSet", spec: MultiSpec) -> tuple[str, ...]:
    return spec.layers or tuple(tap.name for tap in features.recipe.taps if not tap.is_map)


def _dims(features: "FeatureSet", layers: tuple[str, ...], rows: np.ndarray) -> int:
    return sum(features.read(layer, rows[:1]).shape[1] for layer in layers)


def _scores(task: Task, best: Trial, head: Linear, test: np.ndarray) -> np.ndarray:
    """Score the test rows in blocks: row numbers (n,) of the features -> (n, k), before the temperatures."""
    rows = read_rows(task.features, best.layers, best.transform, test, room_bytes=task.room_bytes)
    return np.concatenate([head.scores(block) for _, block in rows.blocks()])


def _result(evidence: Evidence, linear: Linear, metrics: dict[str, Any]) -> MultiFit:
    best, decisions = evidence.found.best, evidence.decisions
    return MultiFit(
        best.layers,
        best.transform,
        best.params,
        evidence.data.classes,
        linear,
        decisions.thresholds.values,
        evidence.scores / decisions.temperatures,
        metrics,
        predicted_rows(evidence),
    )
