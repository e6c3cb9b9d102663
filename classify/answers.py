"""An answer in words: what is said of one image, as a row of a table or an object of JSON."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from classify.deployed import Answers, Bundle
from extract.batches import Loaded
from extract.record import Record, Status

CSV_FIELDS = ("id", "label", "probability", "abstained", "labels", "set", "novelty", "known", "top", "status", "reason")
"""The columns of a table of answers; `labels` is empty where an image has one label."""
PER_CLASS = "probability:"
"""What columns begin with that hold the probability of a class, where all are wanted."""

NOTHING: dict[str, Any] = {
    "label": None,
    "probability": None,
    "abstained": True,
    "set": None,
    "novelty": None,
    "known": None,
    "top": [],
}
"""What is said of an image without features."""


def fields_of(classes: Sequence[str] | None) -> list[str]:
    """List the columns of a table; with `classes`, one for each behind the others."""
    return [*CSV_FIELDS, *(PER_CLASS + name for name in classes or ())]


def answer_of(record: Record, item: Loaded, at: int, found: Answers, bundle: Bundle, spec: Any) -> dict[str, Any]:
    """Say in words of one image what was found of row `at` of its batch; `spec` is a PredictSpec."""
    several = {"labels": []} if bundle.task == "multi" else {}
    if item.failure:
        status, reason = Status.NAMES[item.failure.status], item.failure.reason
        every = {"probabilities": None} if spec.probabilities else {}
        return {"id": record.id, **NOTHING, **several, **every, "status": status, "reason": reason}
    shares = found.probabilities[at]
    order = np.argsort(-shares, kind="stable")
    best = float(shares[order[0]])
    if several:
        several["labels"] = [bundle.classes[i] for i in order if shares[i] >= bundle.label_thresholds[i]]
    every = {"probabilities": _named(bundle, shares, range(len(order)))} if spec.probabilities else {}
    return {
        "id": record.id,
        "label": bundle.classes[order[0]],
        "probability": round(best, 6),
        "abstained": best < spec.limit(bundle),
        **several,
        "set": None if found.sets is None else [bundle.classes[i] for i in order if found.sets[at, i]],
        **_familiar(None if found.novelty is None else float(found.novelty[at])),
        "top": [{"label": bundle.classes[i], "probability": round(float(shares[i]), 6)} for i in order[: spec.top]],
        **every,
        "status": Status.NAMES[Status.OK],
        "reason": "",
    }


def _named(bundle: Bundle, shares: np.ndarray, order: Sequence[int]) -> dict[str, float]:
    return {bundle.classes[i]: round(float(shares[i]), 6) for i in order}


def _familiar(novelty: float | None) -> dict[str, Any]:
    if novelty is None:
        return {"novelty": None, "known": None}
    return {"novelty": round(novelty, 4), "known": novelty <= 1}


def csv_row(answer: dict[str, Any]) -> dict[str, Any]:
    """Flatten an answer for CSV: `top`, `set` and `labels` become JSON in one cell each."""
    lists = {name: json.dumps(answer[name]) for name in ("labels", "set") if answer.get(name) is not None}
    top = json.dumps({each["label"]: each["probability"] for each in answer["top"]})
    return {**table_row(answer), **lists, "top": top}


def table_row(answer: dict[str, Any]) -> dict[str, Any]:
    """Give the probability of each class a column of its own, where the answer has them."""
    every = answer.get("probabilities") or {}
    row = {name: value for name, value in answer.items() if name != "probabilities"}
    return {**row, **{PER_CLASS + name: value for name, value in every.items()}}
