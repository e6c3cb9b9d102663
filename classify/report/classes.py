"""All measures with their intervals, and the classes one by one."""

from collections.abc import Mapping
from typing import Any

from classify.report.evidence import Evidence, Metrics, Section, dig
from classify.report.text import clipped, folded, measure, measure_name, number, plural, share, table

MAX_CLASSES = 200
MAX_OPEN = 30
"""Rows of a table that stand on the page; more are folded."""

COLUMNS = {
    "recall": "found (recall)",
    "precision": "right when named (precision)",
    "f1": "F1",
    "ap": "average precision",
    "average_precision": "average precision",
    "threshold": "named from",
}


def section(evidence: Evidence) -> Section | None:
    """Show the measures, and each class."""
    body = _measures(evidence) + _per_class(evidence.get("per_class") or [])
    return Section("classes", "Measures, and class by class", body) if body else None


def _measures(evidence: Evidence) -> str:
    test, cv = evidence.get("test") or {}, evidence.get("cv") or {}
    rows = [(measure_name(name), measure(name, test.get(name)), measure(name, cv.get(name))) for name in test or cv]
    return table(("", "test (95 % interval)", "cross-validation"), rows, "measures") if rows else ""


def _per_class(found: list[Metrics]) -> str:
    if not found:
        return ""
    columns = [name for name in COLUMNS if any(name in row for row in found)]
    shown = sorted(found, key=_worth)[:MAX_CLASSES] if len(found) > MAX_CLASSES else found
    rows = [
        (clipped(row["class"]), number(row.get("support")), *(share(_shown(row, name)) for name in columns))
        for row in shown
    ]
    left_out = f"the {len(shown)} weakest of {len(found)} classes; all are in metrics.json"
    caption = "test images by their label" if len(shown) == len(found) else left_out
    made = table(("class", "test images", *(COLUMNS[name] for name in columns)), rows, caption)
    return made if len(rows) <= MAX_OPEN else folded(plural(len(rows), "class", "classes"), made)


def _shown(row: Metrics, name: str) -> Any:
    """Return a measure of a class with its interval, where it has one."""
    return (row.get("intervals") or {}).get(name, row.get(name))


def _worth(row: Metrics) -> float:
    """How well a class does; one that was not measured comes last."""
    found = row.get("ap") if row.get("f1") is None else row.get("f1")
    value = dig(found, "value") if isinstance(found, Mapping) else found
    return 2.0 if value is None else value


def weakest(found: list[Metrics], least: int = 5) -> Metrics | None:
    """Return the class of lowest recall among those with enough test images to say so."""
    known = [row for row in found if (row.get("support") or 0) >= least and isinstance(row.get("recall"), float)]
    return min(known, key=lambda row: row["recall"], default=None)
