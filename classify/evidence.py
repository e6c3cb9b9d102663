"""What a fit leaves in metrics.json and predictions.csv: what was asked, found, chosen and measured."""

from typing import Any

import numpy as np

from classify.bundle import PACKAGES, Bundle
from classify.by_class import measured
from classify.calibrate import before_and_after, losses, softmax, top_label
from classify.conformal import measure_abstain, measure_sets, risk_coverage
from classify.curve import learning_curve
from classify.dataset import Dataset
from classify.evaluate import confusion, draw_resamples, evaluate
from classify.folds import Part, fold_of
from classify.grouping import grouping
from classify.hygiene import inspect
from classify.imbalance import imbalance
from classify.inputs import Inputs, blocks_of
from classify.judged import Judged
from classify.probe.rows import block_slices
from classify.report import wanted_thumbnails
from classify.runs import FOLD, PREDICTION_FIELDS, Evidence
from classify.spec import FitSpec
from classify.trials import Trial
from extract.errors import FitError
from extract.progress import Progress
from extract.store import FeatureSet
from extract.store.index import versions


def asked(spec: FitSpec, features: FeatureSet, data: Dataset) -> dict[str, Any]:
    """Return what every fit of one label an image says: what was asked, and on which data."""
    return {
        "task": "single",
        "command": list(spec.command),
        "features": features.name,
        "features_key": features.recipe.key,
        "strategy": spec.strategy,
        "imbalance": imbalance(data.train.y),
        "seed": spec.seed,
        "classes": data.classes,
        "n_train": len(data.train),
        "n_test": len(data.test),
        "n_bad": data.n_bad,
        "n_unlabelled": data.n_unlabelled,
        "split": data.split,
        "advice": None,
        "versions": versions(PACKAGES),
    }


def describe(spec: FitSpec, inputs: Inputs, judged: Judged) -> dict[str, Any]:
    """Return what was asked, on which data, and what was chosen."""
    found, best, task = judged.found, judged.found.best, inputs.task
    return {
        **asked(spec, inputs.features, inputs.data),
        "protocol": None,
        "layers": list(best.candidate.layers),
        "transform": best.candidate.transform,
        "dims": best.candidate.dims,
        "head": best.head,
        "params": best.params,
        "class_weight": spec.class_weight,
        "metric": task.metric,
        "folds": len(task.folds),
        "selection": found.selection,
        "search": [trial_row(trial) for trial in found.trials],
        "per_layer": [trial_row(trial) for trial in found.per_layer],
    }


def trial_row(trial: Trial) -> dict[str, Any]:
    """Return what metrics.json says of one configuration."""
    candidate = trial.candidate
    said = {"layer": candidate.name, "layers": list(candidate.layers), "transform": candidate.transform}
    head = {"dims": candidate.dims, "head": trial.head, "params": trial.params, "stage": trial.stage, "how": trial.how}
    cost = {"seconds": round(trial.seconds, 4), "converged": trial.converged, "at_limit": trial.at_limit}
    return {**said, **head, **trial.metrics, **cost}


def measure(spec: FitSpec, data: Dataset, judged: Judged, scores: np.ndarray) -> dict[str, Any]:
    """Measure the chosen head out of fold, and the refitted one on the test part: scores (n_test, C)."""
    named, resamples = scores.argmax(axis=1), draw_resamples(len(data.test), data.test.groups, spec.seed)
    matrix = confusion(data.test.y, named, data.labels, len(data.classes))
    commonest = int(np.bincount(data.train.y).argmax())
    return {
        "cv": measures(spec.seed, data.train, judged.scores, judged.temperature),
        "test": measures(spec.seed, data.test, scores, judged.temperature),
        "baseline": float((data.test.y == commonest).mean()),
        "confusion": matrix,
        "per_class": measured(matrix, data.test.y, named, resamples),
        "calibration": _calibration(spec, data, judged, scores),
    }


def measures(seed: int, part: Part, scores: np.ndarray, temperature: float) -> dict[str, dict[str, float]]:
    """Measure scores (n, C) of a part by every metric, with intervals."""
    resamples = draw_resamples(len(part), part.groups, seed)
    return evaluate(part.y, scores.argmax(axis=1), resamples, losses(softmax(scores / temperature), part.y))


def _calibration(spec: FitSpec, data: Dataset, judged: Judged, scores: np.ndarray) -> dict[str, Any]:
    shares = softmax(scores / judged.temperature)
    sets = judged.conformal.sets(shares)
    confidence, hit = top_label(shares, data.test.y)
    resamples = draw_resamples(len(data.test), data.test.groups, spec.seed)
    return {
        "temperature": judged.temperature,
        "out_of_fold": before_and_after(judged.scores, data.train.y, judged.temperature),
        "test": before_and_after(scores, data.test.y, judged.temperature),
        "conformal": judged.conformal.as_dict() | measure_sets(sets, data.test.y, resamples),
        "abstain": judged.abstain
        and judged.abstain.as_dict() | {"test": measure_abstain(judged.abstain.threshold, confidence, hit)},
        "risk_coverage": risk_coverage(confidence, hit),
    }


def scores_of(features: FeatureSet, bundle: Bundle, rows: np.ndarray) -> np.ndarray:
    """Score rows (n,) of the features, a block at a time: -> (n, C)."""
    dims = sum(block.shape[1] for block in blocks_of(features, bundle.layers, rows[:1]).values())
    blocks = block_slices((len(rows), dims), np.dtype(np.float64).itemsize)
    return np.concatenate([bundle.scores(blocks_of(features, bundle.layers, rows[at])) for at in blocks])


def without_leaked(
    spec: FitSpec, inputs: Inputs, judged: Judged, scores: np.ndarray
) -> dict[str, dict[str, float]] | None:
    """Measure the test rows that no training row is a twin of; None where that is all of them, or none."""
    train, test = inputs.data.train, inputs.data.test
    fresh = ~inputs.twins.leaked(train.rows, test.rows)
    if fresh.all() or not fresh.any():
        return None
    groups = None if test.groups is None else test.groups[fresh]
    return measures(spec.seed, Part(test.rows[fresh], test.y[fresh], groups), scores[fresh], judged.temperature)


def learning(inputs: Inputs, judged: Judged, progress: Progress) -> tuple[dict[str, Any] | None, list[str]]:
    """Draw the learning curve of the chosen head, its settings unchanged: -> it or None, and why."""
    best, task = judged.found.best, inputs.task
    progress.start("learning curve", len(task.folds))

    def fit_score(subsets: list[np.ndarray], test: np.ndarray) -> list[np.ndarray]:
        scores = inputs.solver.scores(task, best.candidate, best.params, [(rows, test) for rows in subsets])
        progress.advance(1)
        return [each.argmax(axis=1) for each in scores]

    try:
        return learning_curve(fit_score, inputs.data.train, task.folds, task.seed, task.metric)
    except FitError as error:  # parts of an eighth may be too small for a head that all images are enough for
        return None, [f"no learning curve: {error}"]


def harder(metrics: dict[str, Any]) -> list[str]:
    """Say so where the test is worse than cross-validation led to expect, beyond both intervals."""
    cv, test = metrics["cv"]["accuracy"], metrics["test"]["accuracy"]
    if test["high"] >= cv["low"]:
        return []
    found = f"{test['value']:.1%} right, and {cv['value']:.1%} in cross-validation"
    return [
        f"the test images are harder than the training ones ({found}): are they of another origin, or are there groups?"
    ]


def predicted_rows(features: FeatureSet, data: Dataset, part: Part, probabilities: np.ndarray) -> list[dict[str, Any]]:
    """Return one row for each image of a part: probabilities (n, C) -> id, split, label, predicted, probability."""
    named = probabilities.argmax(axis=1)
    rows = zip(part.rows.tolist(), part.y.tolist(), named.tolist(), probabilities.max(axis=1).tolist(), strict=True)
    return [
        dict(
            zip(
                PREDICTION_FIELDS,
                (features.ids[row], features.splits[row], data.labels[code], data.classes[guess], round(share, 6)),
                strict=True,
            )
        )
        for row, code, guess, share in rows
    ]


def gather(
    spec: FitSpec, inputs: Inputs, judged: Judged, bundle: Bundle, scores: np.ndarray, progress: Progress
) -> Evidence:
    """Measure scores (n, C) of the test part, look the data over, and put together what the run says."""
    features, data = inputs.features, inputs.data
    hygiene, findings, more = inspect(
        features,
        data,
        inputs.twins,
        judged.probabilities,
        layer=bundle.layers[-1],
        layers=list(inputs.dims),
        device=inputs.task.device,
    )
    metrics = describe(spec, inputs, judged) | measure(spec, data, judged, scores)
    metrics["calibration"]["open_set"] = bundle.open_set.as_dict() if bundle.open_set else None
    hygiene["duplicates"]["without_cross_split"] = without_leaked(spec, inputs, judged, scores)
    curve, said = learning(inputs, judged, progress)
    answered = predicted_rows(features, data, data.test, softmax(scores / bundle.temperature))
    early, pictures = inputs.trouble, inputs.pictures(wanted_thumbnails(answered, findings))
    # The page looks at further images: what was not at hand is counted once, at the end.
    notes = [note for note in (*inputs.notes, *more, *said) if note not in early]
    metrics |= {
        "grouping": grouping(inputs.task, inputs.solver, judged.found.best, data.train, data.n_named_groups),
        "learning_curve": curve,
        "hygiene": hygiene,
        "notes": list(dict.fromkeys([*notes, *inputs.trouble])),
        "warnings": [*inputs.warnings, *judged.warnings, *harder(metrics)],
    }
    held_back = held_back_rows(
        features, data, data.train, judged.probabilities, fold_of(inputs.task.folds, len(inputs.task))
    )
    return Evidence(metrics, answered, held_back, findings, pictures)


def held_back_rows(
    features: FeatureSet, data: Dataset, part: Part, probabilities: np.ndarray, folds: np.ndarray
) -> list[dict[str, Any]]:
    """Return the same of rows that were held back in turn, and in which fold (n,) each was, 0 for none."""
    rows = predicted_rows(features, data, part, probabilities)
    return [row | {FOLD: number} for row, number in zip(rows, folds.tolist(), strict=True)]
