"""`fit --protocol`: a published protocol, followed to the letter on one tap, so that its figure can be compared."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from classify.bundle import Bundle, write_bundle
from classify.by_class import measured
from classify.calibrate import softmax
from classify.dataset import Dataset, read_dataset
from classify.evaluate import confusion, draw_resamples, evaluate
from classify.evidence import asked, predicted_rows
from classify.folders import whole_folder
from classify.inputs import check_room, layers_of, open_for_fit
from classify.probe.linear import Linear
from classify.probe.memory import plan_memory
from classify.probe.rows import stored_rows
from classify.probe.transforms import rowwise
from classify.protocols import PROTOCOLS, Options, ProtocolData, ProtocolResult
from classify.runs import Evidence, check_replaceable, run_folder, write_evidence
from classify.solvers.base import spread
from classify.spec import AUTO, FitSpec
from extract.errors import FitError
from extract.progress import Progress
from extract.store import FeatureSet

NOT_CALIBRATED = "a protocol calibrates nothing: take its probabilities as an order, not as shares"


def follow(spec: FitSpec, watch: Progress) -> dict[str, Any]:
    """Follow the protocol, test and write a run; return the content of its metrics.json.

    On the last tap, or the only one named. A head that is linear makes a bundle, any other a run without one.
    """
    started = time.perf_counter()
    features = open_for_fit(spec)
    folder = run_folder(spec.out, features)
    layer = _layer(spec, features)
    data = read_dataset(features, labels=spec.labels, group=spec.group, hold_out=spec.hold_out, seed=spec.seed)
    n, dims = len(data.train) + len(data.test), layers_of(spec, features)[layer]
    check_room(plan_memory(n, dims, len(data.classes), 1), f"the protocol {spec.published!r}")
    result = _run(spec, features, layer, data, watch)
    metrics = _described(spec, features, layer, data, result)
    metrics |= {"run": str(folder), "seconds": round(time.perf_counter() - started, 3)}
    check_replaceable(folder)
    with whole_folder(folder, FitError) as temporary:
        if result.linear is not None:
            _write(temporary / "bundle", features, layer, data, result, result.linear)
        answers = predicted_rows(features, data, data.test, softmax(result.scores))
        write_evidence(temporary, Evidence(metrics, answers, [], {}, {}))
    return metrics


def _layer(spec: FitSpec, features: FeatureSet) -> str:
    layers = list(layers_of(spec, features))
    if len(spec.layers) > 1:
        raise FitError(f"a protocol takes one tap, and {len(layers)} are named", remedy="Name one with --layer")
    return layers[-1]


def _run(spec: FitSpec, features: FeatureSet, layer: str, data: Dataset, progress: Progress) -> ProtocolResult:
    train, test = data.train, data.test
    validation = np.array([features.splits[row] == "val" for row in train.rows])
    given = ProtocolData(
        X_train=_rows(features, layer, train.rows),
        y_train=train.y,
        X_test=_rows(features, layer, test.rows),
        y_test=test.y,
        classes=data.classes,
        validation=validation if validation.any() else None,
        groups_test=test.groups,
        preprocessing=features.recipe.preprocessing,
    )
    options = Options(metric=None if spec.metric == AUTO else spec.metric, shots=spec.few_shot, draws=spec.draws)
    return PROTOCOLS[str(spec.published)].run(given, seed=spec.seed, options=options, progress=progress)


def _rows(features: FeatureSet, layer: str, rows: np.ndarray) -> np.ndarray:
    """Read rows (n,) of a tap: (n, D) float32; raises FitError where one is no number."""
    return stored_rows(features, (layer,), "none", rows).take(np.arange(len(rows)))


def _described(
    spec: FitSpec, features: FeatureSet, layer: str, data: Dataset, result: ProtocolResult
) -> dict[str, Any]:
    """Return the content of metrics.json: what no protocol does is null."""
    test = data.test
    matrix = confusion(test.y, result.predicted, data.labels, len(data.classes))
    resamples = draw_resamples(len(test), test.groups, spec.seed)
    overall = evaluate(test.y, result.predicted, resamples)
    nothing = ("cv", "selection", "grouping", "learning_curve", "hygiene", "calibration")
    return {
        **dict.fromkeys(nothing),
        **asked(spec, features, data),
        "protocol": {**result.as_dict(), "kept": result.linear is not None},
        "layers": [layer],
        "transform": result.transform,
        "head": result.protocol,
        "params": result.params,
        "metric": result.metric,
        "test": {**overall, result.metric: result.value},
        "baseline": float((test.y == np.bincount(data.train.y).argmax()).mean()),
        "confusion": matrix,
        "per_class": measured(matrix, test.y, result.predicted, resamples),
        "per_layer": [],
        "search": [],
        "notes": result.notes,
        "warnings": [*data.warnings, NOT_CALIBRATED],
    }


def _write(
    folder: Path, features: FeatureSet, layer: str, data: Dataset, result: ProtocolResult, linear: Linear
) -> None:
    rows = data.train.rows[spread(len(data.train))]
    bundle = Bundle(
        recipe=features.recipe,
        layers=(layer,),
        transform=result.transform,
        head=result.protocol,
        kind="linear",
        params=result.params,
        classes=data.classes,
        temperature=1.0,
        arrays=linear.arrays(),
    )
    X = features.read(layer, rows)
    expected = linear.scores(rowwise(result.transform, X.astype(np.float64)))
    write_bundle(folder, bundle, weights=features.weights_path, blocks={layer: X}, expected=expected)
