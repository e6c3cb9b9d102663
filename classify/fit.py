"""Features -> a classifier with its evidence: the story of `fit`."""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from classify.bundle import PACKAGES, Bundle, write_bundle
from classify.calibrate import at_bound, fit_temperature, losses, nll, softmax
from classify.dataset import Dataset, Part, make_folds, read_dataset
from classify.evaluate import METRICS, confusion, draw_resamples, ece, evaluate, per_class
from classify.folders import whole_folder
from classify.heads import HEADS
from classify.runs import PREDICTION_FIELDS, check_replaceable, run_folder, write_evidence
from classify.search import Search, Trial, fit_noted, quiet_fits
from extract.errors import FitError, OptionError, unknown
from extract.progress import Progress
from extract.spec import available_cores
from extract.store import FeatureSet, open_features
from extract.store.index import versions

STRATEGIES = ("linear",)
GROUPS = ("auto", "none")
MAX_SEED = 2**32 - 1
"""The largest that scikit-learn takes."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitSpec:
    """One fit as the user asked for it. No `layers`: all pooled taps of the features; no `out`: runs/NAME."""

    features: str
    cache: Path = Path("cache")
    layers: tuple[str, ...] = ()
    head: str = "logistic"
    strategy: str = "linear"
    metric: str = "accuracy"
    cv: int = 5
    group: str = "auto"
    labels: Path | None = None
    seed: int = 0
    out: Path | None = None
    jobs: int = field(default_factory=available_cores)
    hold_out: float = 0.2

    def __post_init__(self) -> None:
        tables = {"head": HEADS, "strategy": STRATEGIES, "metric": METRICS, "group": GROUPS}
        for kind, known in tables.items():
            if getattr(self, kind) not in known:
                unknown(kind, getattr(self, kind), known, OptionError)
        if not 0 <= self.seed <= MAX_SEED:
            raise OptionError(f"seed={self.seed}", remedy=f"Take 0 to {MAX_SEED}")
        if self.cv < 2 or self.jobs < 1 or not 0 < self.hold_out <= 0.5:
            said = f"cv={self.cv}, jobs={self.jobs}, hold_out={self.hold_out}"
            raise OptionError(said, remedy="Take 2 folds and 1 job or more, and hold out at most half (0.5)")


@dataclass(frozen=True)
class Found:
    """What the search found: the best trial with its scores out of fold, all trials, and the best of each layer."""

    best: Trial
    trials: list[Trial]
    per_layer: list[Trial]
    folds: int
    temperature: float
    warnings: list[str]


def fit(spec: FitSpec, *, progress: Progress | None = None) -> dict[str, Any]:
    """Search, calibrate, refit, test and write a run; return the content of its metrics.json."""
    started = time.perf_counter()
    features = open_features(spec.features, spec.cache)
    features.check_weights()
    folder = run_folder(spec.out, features)
    data = read_dataset(features, labels=spec.labels, group=spec.group, hold_out=spec.hold_out, seed=spec.seed)
    found = search(spec, features, data, progress)
    bundle, X, expected = refit(spec, features, data, found)
    scores = bundle.scores(features.read(bundle.layer, data.test.rows))
    metrics = describe(spec, features, data, found) | measure(spec, data, found, scores)
    metrics |= {"run": str(folder), "seconds": round(time.perf_counter() - started, 3)}
    metrics["warnings"] += harder(metrics)
    check_replaceable(folder)
    with whole_folder(folder, FitError) as temporary:
        write_bundle(temporary / "bundle", bundle, weights=features.weights_path, X=X, expected=expected)
        write_evidence(temporary, metrics, predicted_rows(features, data, softmax(scores / bundle.temperature)))
    for text in metrics["warnings"]:
        log.warning("%s", text)
    return metrics


def search(spec: FitSpec, features: FeatureSet, data: Dataset, progress: Progress | None) -> Found:
    """Compare every layer and setting on the training part, and calibrate the best on its scores out of fold."""
    layers = _layers(spec, features)
    folds, said = make_folds(data.train, spec.cv, spec.seed)
    resamples = draw_resamples(len(data.train), data.train.groups, spec.seed)
    plan = Search(
        HEADS[spec.head], spec.metric, data.train.y, folds, resamples, len(data.classes), spec.seed, spec.jobs
    )
    best, trials = plan.run(layers, lambda layer: _read(features, layer, data.train), progress)
    per_layer = [plan.best([trial for trial in trials if trial.layer == layer]) for layer in layers]
    temperature = fit_temperature(best.scores, data.train.y)
    return Found(best, trials, per_layer, len(folds), temperature, said + _doubts(spec, best, trials, temperature))


def _layers(spec: FitSpec, features: FeatureSet) -> list[str]:
    """Return the taps to compare. Maps are none of them: a head on some 100,000 columns learns the training set."""
    for layer in spec.layers:
        if layer not in features.layers:
            unknown(
                "layer", layer, features.layers, FitError, remedy=f"{features.name} holds others; extract it first."
            )
    pooled = [tap.name for tap in features.recipe.taps if not tap.is_map]
    maps = [layer for layer in (spec.layers if pooled else features.layers) if layer not in pooled]
    if maps:
        remedy = f"Extract it pooled too: --layer {maps[0].partition(':')[0]}"
        raise FitError(f"{maps[0]!r} is a map, and a head takes rows", where=features.name, remedy=remedy)
    return [layer for layer in pooled if layer in spec.layers or not spec.layers]


def _read(features: FeatureSet, layer: str, part: Part) -> np.ndarray:
    """Read a part's features: (n, D) float32, all of them numbers."""
    X = features.read(layer, part.rows)
    if not np.isfinite(X).all():
        raise FitError(f"rows of {layer!r} hold what is no number", where=features.name, remedy="Verify the cache")
    return X


def _doubts(spec: FitSpec, best: Trial, trials: list[Trial], temperature: float) -> list[str]:
    """Say in words what makes the choice less sure."""
    said = []
    if unfinished := sum(not trial.converged for trial in trials):
        own = ", the chosen one among them" if not best.converged else ""
        said.append(f"{unfinished} of {len(trials)} configurations did not converge{own}")
    if best.at_limit:
        said.append(f"the best {HEADS[spec.head].parameter} is the last that is tried: a better one may lie beyond")
    if at_bound(temperature):
        said.append(
            f"the temperature is at its bound ({temperature:.3g}): take probabilities as an order, not as shares"
        )
    return said


def refit(spec: FitSpec, features: FeatureSet, data: Dataset, found: Found) -> tuple[Bundle, np.ndarray, np.ndarray]:
    """Fit the chosen setting on the whole training part: -> the bundle, X (n, D), and sklearn's own scores (n, C)."""
    head, best = HEADS[spec.head], found.best
    X = _read(features, best.layer, data.train).astype(np.float64)
    with quiet_fits():
        pipeline, fine = fit_noted(head.build(best.value, spec.seed), X, data.train.y)
        expected = head.scores(pipeline, X)
    if not fine:
        found.warnings.append("the last fit, on all training images, did not converge")
    params = head.params(best.value)
    arrays = head.arrays(pipeline)
    bundle = Bundle(features.recipe, best.layer, head.name, head.kind, params, data.classes, found.temperature, arrays)
    return bundle, X, expected


def describe(spec: FitSpec, features: FeatureSet, data: Dataset, found: Found) -> dict[str, Any]:
    """Return what was asked, on which data, and what was chosen."""
    return {
        "features": features.name,
        "features_key": features.recipe.key,
        "strategy": spec.strategy,
        "layers": [found.best.layer],
        "head": spec.head,
        "params": HEADS[spec.head].params(found.best.value),
        "metric": spec.metric,
        "folds": found.folds,
        "seed": spec.seed,
        "classes": data.classes,
        "n_train": len(data.train),
        "n_test": len(data.test),
        "n_bad": data.n_bad,
        "n_unlabelled": data.n_unlabelled,
        "split": data.split,
        "warnings": data.warnings + found.warnings,
        "search": [_row(trial, spec) for trial in found.trials],
        "per_layer": [_row(trial, spec) for trial in found.per_layer],
        "advice": None,
        "versions": versions(PACKAGES),
    }


def _row(trial: Trial, spec: FitSpec) -> dict[str, Any]:
    said = {"layer": trial.layer, "dims": trial.dims, "head": spec.head, "params": HEADS[spec.head].params(trial.value)}
    cost = {"seconds": round(trial.seconds, 4), "converged": trial.converged, "at_limit": trial.at_limit}
    return {**said, **trial.metrics, **cost}


def measure(spec: FitSpec, data: Dataset, found: Found, scores: np.ndarray) -> dict[str, Any]:
    """Measure the chosen head out of fold, and the refitted one on the test part: scores (n_test, C)."""
    matrix = confusion(data.test.y, scores.argmax(axis=1), data.labels, len(data.classes))
    commonest = int(np.bincount(data.train.y).argmax())
    oof = found.best.scores
    return {
        "cv": _measures(spec, data.train, oof, found.temperature),
        "test": _measures(spec, data.test, scores, found.temperature),
        "baseline": float((data.test.y == commonest).mean()),
        "confusion": matrix,
        "per_class": per_class(matrix),
        "calibration": {
            "temperature": found.temperature,
            "out_of_fold": _calibration(oof, data.train.y, found.temperature),
            "test": _calibration(scores, data.test.y, found.temperature),
        },
    }


def _measures(spec: FitSpec, part: Part, scores: np.ndarray, temperature: float) -> dict[str, dict[str, float]]:
    resamples = draw_resamples(len(part), part.groups, spec.seed)
    return evaluate(part.y, scores.argmax(axis=1), resamples, losses(softmax(scores / temperature), part.y))


def harder(metrics: dict[str, Any]) -> list[str]:
    """Say so where the test is worse than cross-validation led to expect, beyond both intervals."""
    cv, test = metrics["cv"]["accuracy"], metrics["test"]["accuracy"]
    if test["high"] >= cv["low"]:
        return []
    found = f"{test['value']:.1%} right, and {cv['value']:.1%} in cross-validation"
    return [
        f"the test images are harder than the training ones ({found}): are they of another origin, or are there groups?"
    ]


def _calibration(scores: np.ndarray, y: np.ndarray, temperature: float) -> dict[str, float]:
    before, after = softmax(scores), softmax(scores / temperature)
    return {
        "nll_before": nll(scores, y),
        "nll_after": nll(scores, y, temperature),
        "ece_before": ece(before, y),
        "ece_after": ece(after, y),
    }


def predicted_rows(features: FeatureSet, data: Dataset, probabilities: np.ndarray) -> list[dict[str, Any]]:
    """Return one row for each test image: probabilities (n, C) -> id, split, label, predicted, probability."""
    rows = []
    for row, code, shares in zip(data.test.rows, data.test.y, probabilities, strict=True):
        named = int(shares.argmax())
        said = (
            features.ids[row],
            features.splits[row],
            data.labels[code],
            data.classes[named],
            round(float(shares[named]), 6),
        )
        rows.append(dict(zip(PREDICTION_FIELDS, said, strict=True)))
    return rows
