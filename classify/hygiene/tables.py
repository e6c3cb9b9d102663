"""Findings as rows with file names, and as CSV files that a spreadsheet opens without running what names say."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.hygiene.duplicates import Duplicates
from classify.hygiene.features import DeadFeatures
from classify.hygiene.labels import LabelIssues
from classify.hygiene.outliers import Outliers

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

FIELDS: dict[str, tuple[str, ...]] = {
    "suspect_labels": ("id", "split", "label", "suggested", "probability_of_label", "score"),
    "duplicates": ("id_a", "id_b", "split_a", "split_b", "label_a", "label_b", "distance", "ncc", "kind"),
    "conflicts": ("id_a", "id_b", "label_a", "label_b", "kind"),
    "dead_features": ("layer", "feature", "value"),
    "outliers": ("id", "split", "label", "distance", "score"),
}
"""The columns of each table of findings."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""What a text begins with that spreadsheets take for a formula, and the apostrophe that keeps them from it."""

Row = dict[str, Any]


def duplicate_rows(features: "FeatureSet", found: Duplicates, labels: dict[int, str]) -> list[Row]:
    """Return a row for each pair, those that cross the given splits first; `labels` by row, "" for none."""
    rows = [
        {
            "id_a": features.ids[pair.a],
            "id_b": features.ids[pair.b],
            "split_a": features.splits[pair.a],
            "split_b": features.splits[pair.b],
            "label_a": labels.get(pair.a, ""),
            "label_b": labels.get(pair.b, ""),
            "distance": _rounded(pair.distance),
            "ncc": None if pair.ncc is None else _rounded(pair.ncc),
            "kind": pair.kind,
        }
        for pair in found.pairs
    ]
    return sorted(rows, key=lambda row: row["split_a"] == row["split_b"])


def conflict_rows(duplicates: Sequence[Row]) -> list[Row]:
    """Choose the pairs of one image with two labels, from the rows of duplicates."""
    both = (row for row in duplicates if row["label_a"] and row["label_b"] and row["label_a"] != row["label_b"])
    return [{name: row[name] for name in FIELDS["conflicts"]} for row in both]


def suspect_rows(
    features: "FeatureSet", found: LabelIssues, rows: np.ndarray, y: np.ndarray, classes: Sequence[str]
) -> list[Row]:
    """Return a row for each suspect label, the most suspect first: rows (n,) and y (n,) are those that were judged."""
    columns = (rows[found.at], y[found.at], found.suggested, found.probability, found.margin)
    return [
        {
            "id": features.ids[row],
            "split": features.splits[row],
            "label": classes[label],
            "suggested": classes[suggested],
            "probability_of_label": _rounded(probability),
            "score": _rounded(margin),
        }
        for row, label, suggested, probability, margin in zip(*(each.tolist() for each in columns), strict=True)
    ]


def outlier_rows(features: "FeatureSet", found: Outliers, rows: np.ndarray, labels: dict[int, str]) -> list[Row]:
    """Return a row for each outlier, the farthest first: rows (n,) are those that were looked at."""
    numbered = zip(rows[found.at].tolist(), found.distance.tolist(), found.score.tolist(), strict=True)
    return [
        {
            "id": features.ids[row],
            "split": features.splits[row],
            "label": labels.get(row, ""),
            "distance": _rounded(distance),
            "score": _rounded(score),
        }
        for row, distance, score in numbered
    ]


def dead_rows(found: Sequence[DeadFeatures]) -> list[Row]:
    """Return a row for each feature that is constant: its number in the layer and its value."""
    return [
        {"layer": layer.layer, "feature": feature, "value": value}
        for layer in found
        for feature, value in zip(layer.constant.tolist(), layer.value.tolist(), strict=True)
    ]


def write_findings(folder: Path, findings: dict[str, list[Row]]) -> None:
    """Write FOLDER/NAME.csv for each table, also for an empty one: that nothing was found is a finding.

    A text that begins with one of = + - @ ' or a tab gets an apostrophe in front, as spreadsheets run formulas of CSV
    files; take one leading apostrophe off to have the text back. Names that are no UTF-8 keep their bytes.
    """
    folder.mkdir(exist_ok=True)
    for name, rows in findings.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.DictWriter(file, FIELDS[name])
            writer.writeheader()
            writer.writerows({column: _safe(value) for column, value in row.items()} for row in rows)


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def unquoted(text: str) -> str:
    """Take off the apostrophe in front of a text that spreadsheets would run."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def _rounded(value: float) -> float:
    return round(float(value), 6)
