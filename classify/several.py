"""`fit --multi-label`: images that have several labels, each class answered for itself."""

import time
from typing import Any

from classify.bundle import PACKAGES, Bundle, write_bundle
from classify.folders import whole_folder
from classify.hygiene import open_images
from classify.inputs import blocks_of, layers_of, look_for_duplicates, open_for_fit
from classify.labels import csv_rows
from classify.multilabel.data import MultiData, read_multilabel
from classify.multilabel.fit import MultiFit, MultiSpec, fit_multilabel
from classify.multilabel.labels import add_up
from classify.probe.backend import pick_device
from classify.runs import Evidence, check_replaceable, run_folder, write_evidence
from classify.spec import AUTO, HEAD, FitSpec
from extract.errors import FitError, OptionError
from extract.progress import Progress
from extract.store import FeatureSet
from extract.store.index import versions

NOT_DONE = ("grouping", "learning_curve", "hygiene", "advice", "protocol", "class_weight")
"""What is asked of one label an image only."""


def fit_several(spec: FitSpec, watch: Progress) -> dict[str, Any]:
    """Search, choose thresholds, refit, test and write a run; return the content of its metrics.json."""
    started = time.perf_counter()
    _check(spec)
    features = open_for_fit(spec)
    folder = run_folder(spec.out, features)
    data, notes = _read(spec, features, watch)
    asked = MultiSpec(layers=spec.layers, cv=spec.cv, seed=spec.seed, device=pick_device(spec.device))
    found = fit_multilabel(features, data, asked, watch)
    metrics = _described(spec, features, found, notes)
    metrics |= {"run": str(folder), "seconds": round(time.perf_counter() - started, 3)}
    check_replaceable(folder)
    with whole_folder(folder, FitError) as temporary:
        blocks = blocks_of(features, found.layers, data.test.rows)
        bundle, weights = _bundle(features, found), features.weights_path
        write_bundle(temporary / "bundle", bundle, weights=weights, blocks=blocks, expected=found.scores)
        write_evidence(temporary, Evidence(metrics, found.predictions, [], {}, {}))
    return metrics


def _check(spec: FitSpec) -> None:
    """Refuse what means nothing with several labels an image."""
    if spec.head != HEAD or spec.metric != AUTO or spec.class_weight or spec.answer_accuracy:
        said = f"several labels take the head {HEAD} by mean AP, without weights of classes or a threshold to answer by"
        raise OptionError(said, remedy="Leave --head, --metric, --class-weight and --answer-accuracy out")


def _read(spec: FitSpec, features: FeatureSet, watch: Progress) -> tuple[MultiData, list[str]]:
    dims, cells = layers_of(spec, features), None
    images, notes = open_images(features, spec.data, spec.root)
    twins, near = look_for_duplicates(spec, features, list(dims)[-1], images, watch)
    if spec.labels:
        cells = add_up([row[1:] for row in csv_rows(spec.labels)], features.ids, str(spec.labels))
    known = {"cells": cells, "group": spec.group, "near": near, "share": spec.hold_out, "seed": spec.seed}
    return read_multilabel(features, **known), [*notes, *twins.notes]


def _described(spec: FitSpec, features: FeatureSet, found: MultiFit, notes: list[str]) -> dict[str, Any]:
    return {
        **dict.fromkeys(NOT_DONE),
        **found.metrics,
        "notes": [*notes, *found.metrics["notes"]],
        "command": list(spec.command),
        "features": features.name,
        "features_key": features.recipe.key,
        "strategy": spec.strategy,
        "versions": versions(PACKAGES),
    }


def _bundle(features: FeatureSet, found: MultiFit) -> Bundle:
    return Bundle(
        recipe=features.recipe,
        layers=found.layers,
        transform=found.transform,
        head=HEAD,
        kind="linear",
        params=found.params,
        classes=found.classes,
        temperature=1.0,
        arrays=found.linear.arrays(),
        task="multi",
        label_thresholds=tuple(found.thresholds.tolist()),
    )
