"""The folder of a run: where it goes, what it may replace, and the evidence in it."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

from classify.bundle import holds_bundle
from classify.folders import check_writable
from classify.report import render
from extract.errors import FitError
from extract.store.reader import FeatureSet

RUN_FILES = {"metrics.json", "predictions.csv", "report.html", "bundle"}
PREDICTION_FIELDS: tuple[str, ...] = ("id", "split", "label", "predicted", "probability")
log = logging.getLogger(__name__)


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
    return before


def _features_of_run(folder: Path) -> str | None:
    """Return the features key of the run in a folder; None where there is no run of ours."""
    try:
        # Other tools write a metrics.json too; what they left beside it is not ours to replace.
        return str(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["features_key"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def write_evidence(folder: Path, metrics: dict[str, Any], predictions: list[dict[str, Any]]) -> None:
    """Write metrics.json, predictions.csv and report.html. Names that are no UTF-8 keep their bytes in the CSV."""
    text = json.dumps(metrics, indent=2, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    with (folder / "predictions.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, PREDICTION_FIELDS)
        writer.writeheader()
        writer.writerows(predictions)
    (folder / "report.html").write_text(render(metrics, predictions), encoding="utf-8")
