"""The folder of a run: where it goes, what it may replace, and the evidence in it."""

import csv
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classify import sklearn_joblib
from classify.bundle import holds_bundle
from classify.folders import check_writable
from classify.hygiene import write_findings
from classify.hygiene.tables import FIELDS
from classify.report import render
from extract.errors import FitError
from extract.store.reader import FeatureSet

FINDINGS = "findings"
TRAININGS = "training.csv"
RUN_FILES = {
    *("metrics.json", "predictions.csv", "out_of_fold.csv", TRAININGS, "report.html"),
    *("bundle", FINDINGS, sklearn_joblib.NAME),
}
PREDICTION_FIELDS: tuple[str, ...] = ("id", "split", "label", "predicted", "probability")
FOLD = "fold"
"""The last column of answers out of fold."""
Rows = list[dict[str, Any]]
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a run leaves beside its bundle: metrics, answers for the test part and out of fold, findings by table.

    `thumbnails` are data: URIs by the id of the image; `trainings` is a CSV of every look of every training, "" where
    nothing was trained but a head.
    """

    metrics: dict[str, Any]
    predictions: Rows
    out_of_fold: Rows
    findings: dict[str, Rows]
    thumbnails: dict[str, str | None]
    trainings: str = ""


def run_folder(out: Path | None, features: FeatureSet) -> Path:
    """Choose where the run goes: a new or empty folder, or a run of ours, which it replaces."""
    folder = out or Path("runs") / features.name.split("/")[0]
    before = check_replaceable(folder)
    check_writable(folder, FitError)
    if before and before != features.recipe.key:
        log.warning(
            "%s held a run on other features (key %s); it is replaced. --out DIR keeps both", folder, before[:12]
        )
    return folder


def check_replaceable(folder: Path) -> str | None:
    """Raise FitError where a folder holds anything but a run of ours; return the features key of that run."""
    before, remedy = _features_of_run(folder), "Name another with --out DIR"
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        said = f"no folder to write to ({error.strerror or error})"
        raise FitError(said, where=str(folder), remedy=remedy) from error
    if names and not before:
        raise FitError("exists and is not a run of ours", where=str(folder), remedy=remedy)
    if others := sorted(names - RUN_FILES):
        raise FitError(f"holds more than a run of ours: {others[0]!r}", where=str(folder), remedy=remedy)
    if "bundle" in names and not holds_bundle(folder / "bundle"):
        raise FitError("its bundle/ holds more than a bundle of ours", where=str(folder), remedy=remedy)
    if FINDINGS in names and not _holds_findings(folder / FINDINGS):
        raise FitError(f"its {FINDINGS}/ holds more than tables of ours", where=str(folder), remedy=remedy)
    return before


def _features_of_run(folder: Path) -> str | None:
    """Return the features key of the run in a folder; None where there is no run of ours."""
    try:
        # Other tools write a metrics.json too; what they left beside it is not ours to replace.
        return str(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["features_key"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _holds_findings(folder: Path) -> bool:
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= {f"{name}.csv" for name in FIELDS}


def write_evidence(folder: Path, found: Evidence) -> None:
    """Write metrics.json, the answers, the findings and the page; names that are no UTF-8 keep their bytes in CSVs."""
    text = json.dumps(found.metrics, indent=2, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    _write_rows(folder / "predictions.csv", found.predictions, PREDICTION_FIELDS)
    if found.out_of_fold:  # a protocol has none, nor has a fit of several labels
        _write_rows(folder / "out_of_fold.csv", found.out_of_fold, (*PREDICTION_FIELDS, FOLD))
    if found.trainings:
        (folder / TRAININGS).write_text(found.trainings, encoding="utf-8")
    write_findings(folder / FINDINGS, found.findings)
    page = render(found.metrics, found.predictions, found.findings, found.thumbnails)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _write_rows(path: Path, rows: Rows, fields: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(_cells(row) for row in rows)


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """Give the probabilities of several labels the one cell that a table has for them, as JSON."""
    return {**row, "probability": json.dumps(row["probabilities"])} if "probabilities" in row else row
