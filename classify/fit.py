"""Features -> a classifier with its evidence: the story of `fit`."""

import logging
import time
from collections.abc import Callable
from typing import Any

from classify.bundle import write_bundle
from classify.deploy import deploy
from classify.evidence import gather
from classify.folders import whole_folder
from classify.inputs import blocks_of, open_for_fit, read_inputs
from classify.judged import judge
from classify.published import follow
from classify.runs import check_replaceable, run_folder, write_evidence
from classify.search import search
from classify.several import fit_several
from classify.spec import FitSpec
from classify.tuning import LINEAR
from extract.errors import FitError
from extract.progress import Progress, Silent, Watch

log = logging.getLogger(__name__)


def fit(spec: FitSpec, *, progress: Watch | None = None) -> dict[str, Any]:
    """Write a run, by search or by a published protocol, and return the content of its metrics.json."""
    metrics = road_of(spec)(spec, progress or Silent())
    for text in metrics["warnings"]:
        log.warning("%s", text)
    return metrics


def road_of(spec: FitSpec) -> Callable[[FitSpec, Watch], dict[str, Any]]:
    """Choose who fits: the search, a protocol, several labels, or fine-tuning, which alone imports torch."""
    if spec.strategy != LINEAR:
        from classify.finetune.story import fine_tune

        return fine_tune
    return follow if spec.published else fit_several if spec.multi_label else probe


def probe(spec: FitSpec, watch: Progress) -> dict[str, Any]:
    """Search, calibrate, refit, test and write a run; return the content of its metrics.json."""
    started = time.perf_counter()
    features = open_for_fit(spec)
    folder = run_folder(spec.out, features)
    inputs = read_inputs(spec, features, watch)
    for note in inputs.notes:
        watch.note(note)
    found = search(inputs.task, inputs.solver, inputs.dims, watch)
    judged = judge(spec, inputs.task, inputs.solver, found)
    bundle, fitted = deploy(spec, inputs, judged)
    evidence = gather(spec, inputs, judged, bundle, watch)
    evidence.metrics.update(run=str(folder), seconds=round(time.perf_counter() - started, 3))
    check_replaceable(folder)
    with whole_folder(folder, FitError) as temporary:
        blocks = blocks_of(inputs.features, bundle.layers, inputs.data.train.rows[fitted.at])
        weights = inputs.features.weights_path
        write_bundle(temporary / "bundle", bundle, weights=weights, blocks=blocks, expected=fitted.expected)
        write_evidence(temporary, evidence)
    return evidence.metrics
