"""What the cache can tell about the data: images that are there twice, wrong labels, dead features, outliers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.hygiene import tables
from classify.hygiene.duplicates import Duplicates, find_duplicates
from classify.hygiene.features import DeadFeatures, dead_features
from classify.hygiene.labels import label_issues
from classify.hygiene.neighbours import unit_rows
from classify.hygiene.outliers import find_outliers
from classify.hygiene.pixels import Images, open_images
from classify.hygiene.tables import write_findings

if TYPE_CHECKING:
    from classify.dataset import Dataset
    from extract.store.reader import FeatureSet

__all__ = ["Duplicates", "Images", "find_duplicates", "inspect", "open_images", "write_findings"]

Findings = dict[str, list[dict[str, Any]]]


def inspect(
    features: "FeatureSet",
    data: "Dataset",
    duplicates: Duplicates,
    probabilities: np.ndarray,
    *,
    layer: str,
    layers: Sequence[str],
    device: str = "cpu",
) -> tuple[dict[str, Any], Findings, list[str]]:
    """Look a data set over: -> the `hygiene` of metrics.json, the findings by table, and notes for people.

    `duplicates` were found before the folds were made. `probabilities` (n_train, C) are calibrated and out of fold, NaN
    for rows that have none. Outliers are looked for in `layer`, dead features in all `layers`.
    """
    rows = np.concatenate([data.train.rows, data.test.rows])
    y = np.concatenate([data.train.y, data.test.y])
    labels = {row: data.labels[code] for row, code in zip(rows.tolist(), y.tolist(), strict=True)}
    issues = label_issues(probabilities, data.train.y)
    dims = features.read(layer, rows[:1]).shape[1]
    outliers = find_outliers(lambda at: unit_rows(features, layer, rows[at]), dims, y, device=device)
    dead = dead_features(features, layers, rows)
    pairs = tables.duplicate_rows(features, duplicates, labels)
    findings = {
        "suspect_labels": tables.suspect_rows(features, issues, data.train.rows, data.train.y, data.classes),
        "duplicates": pairs,
        "conflicts": tables.conflict_rows(pairs),
        "dead_features": tables.dead_rows(dead),
        "outliers": tables.outlier_rows(features, outliers, rows, labels),
    }
    hygiene = {
        "duplicates": _said_of_duplicates(duplicates, data),
        "label_issues": {"n": len(issues), "n_checked": issues.n_checked, "words": issues.words},
        "conflicts": {"n": len(findings["conflicts"])},
        "dead_features": _said_of_dead(dead),
        "outliers": {"n": len(outliers), "among": outliers.among},
    }
    return hygiene, findings, duplicates.notes + [outliers.note] * bool(outliers.note)


def _said_of_duplicates(found: Duplicates, data: "Dataset") -> dict[str, Any]:
    test = set(data.test.rows.tolist())
    leaked = int(found.leaked(data.train.rows, data.test.rows).sum())
    return {
        "searched": found.searched,
        "n_pairs": len(found.pairs),
        "n_groups": found.n_groups,
        "n_cross_split": sum((pair.a in test) != (pair.b in test) for pair in found.pairs),
        "n_leaked": leaked,
        "confirmed_by": found.confirmed_by,
        "without_cross_split": None,
        "words": _words(found, leaked, len(test)),
    }


def _words(found: Duplicates, leaked: int, n_test: int) -> str:
    """Say what is there twice, and whether that makes the test too easy."""
    exact = sum(pair.kind == "exact" for pair in found.pairs)
    near = len(found.pairs) - exact
    looked = "" if found.searched else " (nearly equal ones were not looked for)"
    if not found.pairs:
        return f"no image is there twice{looked}"
    said = f"{found.n_groups} images are there more than once: {exact} pairs are equal, {near} nearly so{looked}"
    leak = f"{leaked} of {n_test} test images are training images too: the test is too easy"
    return f"{said}; {leak}" if leaked else f"{said}; none is in the training and in the test part"


def _said_of_dead(found: Sequence[DeadFeatures]) -> dict[str, Any]:
    return {
        "n": sum(len(layer.constant) for layer in found),
        "of": sum(layer.of for layer in found),
        "n_nearly": sum(len(layer.nearly) for layer in found),
    }
