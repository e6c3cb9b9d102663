"""What the answers of a run are worth on labelled images that it has not seen."""

from collections.abc import Callable
from typing import Any

import numpy as np

from classify.bundle import Answers, Bundle
from classify.by_class import measured
from classify.calibrate import calibration, losses, top_label
from classify.conformal import measure_abstain, measure_sets
from classify.evaluate import confusion, draw_resamples, evaluate, group_codes
from classify.multilabel.data import Part
from classify.multilabel.labels import classes_of, matrix_of
from classify.multilabel.metrics import evaluate_multi
from extract.errors import FitError
from extract.record import Record


def assess(
    bundle: Bundle, records: tuple[Record, ...], contents: list[bytes], found: Answers, limit: float
) -> dict[str, Any]:
    """Measure answers to records with labels: `contents` are digests of their bytes; NaN probabilities are bad rows.

    `limit` is the probability under which there is no answer. Raises FitError where every row is bad.
    """
    good = np.asarray(np.isfinite(found.probabilities).all(axis=1))
    at = np.flatnonzero(good).tolist()
    if not at:
        raise FitError("not one image could be read", remedy="See the reasons with: pipeline.py predict")
    groups = group_codes([records[i].group or "" for i in at], [contents[i] for i in at])
    labels, answers = [str(records[i].label) for i in at], _of_rows(found, good)
    novel = None if answers.novelty is None else float((answers.novelty > 1).mean())
    counts = {"n": len(at), "n_bad": len(records) - len(at), "novel": novel}
    return TASKS[bundle.task](bundle, labels, groups, answers, limit) | counts


def _of_rows(found: Answers, good: np.ndarray) -> Answers:
    sets, novelty = (None if part is None else part[good] for part in (found.sets, found.novelty))
    return Answers(found.probabilities[good], sets, novelty)


def _one_label(
    bundle: Bundle, labels: list[str], groups: np.ndarray | None, found: Answers, limit: float
) -> dict[str, Any]:
    """Measure one label an image; a class that the run never saw counts as wrong."""
    shares = found.probabilities
    names = [*bundle.classes, *sorted(set(labels) - set(bundle.classes))]
    code = {name: number for number, name in enumerate(names)}
    y = np.array([code[label] for label in labels])
    resamples = draw_resamples(len(y), groups, seed=0)
    matrix = confusion(y, shares.argmax(axis=1), names, len(bundle.classes))
    held = None if found.sets is None else measure_sets(found.sets, y, resamples)
    promised = {"alpha": bundle.conformal.alpha} if bundle.conformal else {}
    return {
        "metrics": evaluate(y, shares.argmax(axis=1), resamples, losses(shares, y)),
        "unseen_classes": names[len(bundle.classes) :],
        "confusion": matrix,
        "per_class": measured(matrix, y, shares.argmax(axis=1), resamples),
        "calibration": calibration(shares, y),
        "conformal": held and {**promised, **held},
        "abstain": {"threshold": limit, **measure_abstain(limit, *top_label(shares, y))},
    }


def _several_labels(
    bundle: Bundle, labels: list[str], groups: np.ndarray | None, found: Answers, limit: float
) -> dict[str, Any]:
    """Measure sets of labels, written as `cat|dog`; a label that is no class is a miss."""
    Y, unknown = matrix_of(labels, bundle.classes)
    part, shares = Part(np.arange(len(labels)), Y, unknown, groups), found.probabilities
    resamples = draw_resamples(len(labels), groups, seed=0)
    measures = evaluate_multi(part, shares, shares >= np.array(bundle.label_thresholds), resamples)
    by_class = zip(bundle.classes, measures.per_class, strict=True)
    return {
        "metrics": measures.overall,
        "unseen_classes": sorted(set(classes_of(labels)) - set(bundle.classes)),
        "per_class": [{"class": name, **each} for name, each in by_class],
    }


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"single": _one_label, "multi": _several_labels}
"""By the task of a bundle."""
