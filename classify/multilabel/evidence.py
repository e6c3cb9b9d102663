"""What metrics.json says of a fit with several labels an image."""

from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from classify.evaluate import draw_resamples, interval
from classify.multilabel.choose import corrected
from classify.multilabel.data import MultiData
from classify.multilabel.decide import Decisions, decide_across
from classify.multilabel.labels import format_cell
from classify.multilabel.metrics import Measures, evaluate_multi
from classify.multilabel.probabilities import at_bounds, classwise_ece, log_losses, probabilities
from classify.multilabel.search import Found
from classify.multilabel.trial import Task

RULE = "one standard error: the narrowest, then the most regularised, of those that the best is not clearly above"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a fit found on the training part, and the `scores` (n_test, k) of the test part, before the temperatures."""

    task: Task
    data: MultiData
    found: Found
    decisions: Decisions
    scores: np.ndarray
    seed: int


def describe(evidence: Evidence) -> dict[str, Any]:
    """Return what was fitted on which data, what was tried, and what was chosen how."""
    data, found = evidence.data, evidence.found
    scanned = [trial for trial in found.trials if trial.head == "ridge"]
    per_layer = {trial.layers: trial for trial in sorted(scanned, key=lambda trial: trial.value)}
    in_order, wide = dict.fromkeys(trial.layers for trial in scanned), evidence.task.resamples.widening
    return {
        "task": "multi",
        "layers": list(found.best.layers),
        "transform": found.best.transform,
        "head": found.best.head,
        "params": found.best.params,
        "metric": "map",
        "ap": evidence.task.form,
        "folds": len(evidence.task.folds),
        "seed": evidence.seed,
        "classes": data.classes,
        "labels": _labels(data),
        "n_train": len(data.train),
        "n_test": len(data.test),
        "n_bad": data.n_bad,
        "n_unlabelled": data.n_unlabelled,
        "split": data.split,
        "warnings": _doubts(evidence),
        "notes": found.notes,
        "selection": _selection(evidence),
        "search": [trial.row(wide) for trial in found.trials],
        "per_layer": [per_layer[layers].row(wide) for layers in in_order],
    }


def _labels(data: MultiData) -> dict[str, Any]:
    """Say how many labels the images of both parts have."""
    counts = np.concatenate([part.Y.sum(axis=1) + part.unknown for part in (data.train, data.test)])
    return {"mean": float(counts.mean()), "none": int((counts == 0).sum()), "several": int((counts > 1).sum())}


def _doubts(evidence: Evidence) -> list[str]:
    """Say in words what makes the choice less sure."""
    found, said = evidence.found, []
    if unfinished := sum(not trial.converged for trial in found.trials):
        own = "" if found.best.converged else ", the chosen one among them"
        said.append(f"{unfinished} of {len(found.trials)} configurations did not converge{own}")
    if found.best.at_limit:
        said.append("the best C is the last that is tried: a better one may lie beyond")
    there = at_bounds(evidence.decisions.temperatures, found.best.scores, evidence.data.train.Y)
    if bound := list(compress(evidence.data.classes, there)):
        text = f"the temperatures of {len(bound)} classes are at a bound, such as that of {bound[0]!r}"
        said.append(f"{text}: take their probabilities as an order, not as shares")
    return said


def _selection(evidence: Evidence) -> dict[str, Any]:
    """Say what the chosen one is worth, as measured, and corrected for having been chosen."""
    task, trials, best = evidence.task, evidence.found.trials, evidence.found.best
    values, drawn = np.array([trial.value for trial in trials]), np.stack([trial.drawn for trial in trials])
    taken = next(at for at, trial in enumerate(trials) if trial is best)
    fair = corrected(values, drawn, taken, task.counts, lambda at, counts: task.drawn(trials[at].scores, counts))
    naive = interval(best.value, best.drawn, task.resamples.widening)
    return {"metric": "map", "n_configurations": len(trials), "naive": naive, "corrected": fair, "rule": RULE}


def measure(evidence: Evidence) -> dict[str, Any]:
    """Measure the chosen head out of fold, with decisions of other folds, and the refitted one on the test part."""
    task, data, decisions = evidence.task, evidence.data, evidence.decisions
    oof = evidence.found.best.scores
    predicted, losses = decide_across(oof, data.train.Y, task.folds, task.resamples)
    cv = evaluate_multi(data.train, oof, predicted, task.resamples, form=task.form, losses=losses)
    losses = log_losses(evidence.scores, data.test.Y, decisions.temperatures)
    resamples, predicted = draw_resamples(len(data.test), data.test.groups, evidence.seed), _predicted(evidence)
    test = evaluate_multi(data.test, evidence.scores, predicted, resamples, form=task.form, losses=losses)
    shares = {"out_of_fold": _calibration(oof, data.train.Y, decisions.temperatures)}
    shares["test"] = _calibration(evidence.scores, data.test.Y, decisions.temperatures)
    return {
        "cv": cv.overall,
        "test": test.overall,
        "baseline": float(data.test.Y.mean(axis=0)[data.test.Y.any(axis=0)].mean()),
        "per_class": _per_class(evidence, cv, test),
        "calibration": {"temperatures": decisions.temperatures.tolist(), **shares},
    }


def harder(metrics: dict[str, Any]) -> list[str]:
    """Say so where the test is worse than cross-validation led to expect, beyond both intervals."""
    cv, test = metrics["cv"]["map"], metrics["test"]["map"]
    if test["high"] >= cv["low"]:
        return []
    found = f"mean AP {test['value']:.1%}, and {cv['value']:.1%} in cross-validation"
    said = f"the test images are harder than the training ones ({found})"
    return [f"{said}: are they of another origin, or are there groups?"]


def _predicted(evidence: Evidence) -> np.ndarray:
    return evidence.decisions.predicted(evidence.scores)


def _per_class(evidence: Evidence, cv: Measures, test: Measures) -> list[dict[str, Any]]:
    """Return each class of the test part: the figures by name, None for 0 / 0, and their intervals beside them."""
    thresholds, T = evidence.decisions.thresholds, evidence.decisions.temperatures
    rows = []
    for code, name in enumerate(evidence.data.classes):
        found, trained = test.per_class[code], int(evidence.data.train.Y[:, code].sum())
        values = {metric: each["value"] if each else None for metric, each in found.items()}
        support = {"support": int(evidence.data.test.Y[:, code].sum()), "n_train": trained}
        chosen = {"threshold": float(thresholds.values[code]), "own_threshold": bool(thresholds.own[code])}
        more = {"temperature": float(T[code]), "cv_ap": cv.per_class[code]["ap"], "intervals": found}
        rows.append({"class": name, **values, **support, **chosen, **more})
    return rows


def _calibration(scores: np.ndarray, Y: np.ndarray, temperatures: np.ndarray) -> dict[str, float]:
    found = {}
    for when, T in (("before", np.ones_like(temperatures)), ("after", temperatures)):
        found[f"nll_{when}"] = float(log_losses(scores, Y, T).mean())
        found[f"ece_{when}"] = classwise_ece(probabilities(scores, T), Y)
    return found


def predicted_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Return a row for each test image: id, split, label and predicted as cells, and the probability of each class."""
    features, data = evidence.task.features, evidence.data
    shares, predicted = probabilities(evidence.scores, evidence.decisions.temperatures), _predicted(evidence)
    rows = []
    for row, p, there in zip(data.test.rows.tolist(), shares, predicted, strict=True):
        named = format_cell(name for name, is_there in zip(data.classes, there, strict=True) if is_there)
        said = {"id": features.ids[row], "split": features.splits[row], "label": data.cells[row], "predicted": named}
        by_class = {name: round(float(each), 6) for name, each in zip(data.classes, p, strict=True)}
        rows.append({**said, "probabilities": by_class})
    return rows
