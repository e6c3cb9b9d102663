"""Features -> a classifier with its evidence: the story of `fit`."""

import logging
import time
from collections.abc import Callable
from typing import Any

from classify.bundle import Bundle, write_bundle
from classify.calibrate import softmax
from classify.evidence import describe, harder, learning, measure, predicted_rows, scores_of, without_leaked
from classify.folders import whole_folder
from classify.grouping import grouping
from classify.hygiene import inspect
from classify.inputs import Inputs, blocks_of, open_for_fit, read_inputs
from classify.judged import Judged, judge
from classify.openset import draw_reference, fit_open_set
from classify.published import follow
from classify.report import wanted_thumbnails
from classify.runs import Evidence, check_replaceable, run_folder, write_evidence
from classify.scoring import join
from classify.search import search
from classify.several import fit_several
from classify.solvers import Fitted
from classify.spec import FitSpec
from classify.tuning import LINEAR
from extract.errors import FitError
from extract.progress import Progress, Silent

log = logging.getLogger(__name__)


def fit(spec: FitSpec, *, progress: Progress | None = None) -> dict[str, Any]:
    """Write a run, by search or by a published protocol, and return the content of its metrics.json."""
    metrics = road_of(spec)(spec, progress or Silent())
    for text in metrics["warnings"]:
        log.warning("%s", text)
    return metrics


def road_of(spec: FitSpec) -> Callable[[FitSpec, Progress], dict[str, Any]]:
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


def deploy(spec: FitSpec, inputs: Inputs, judged: Judged) -> tuple[Bundle, Fitted]:
    """Fit the chosen head on the whole training part: -> the bundle, and what its scores are held against."""
    best, train = judged.found.best, inputs.data.train
    fitted = inputs.solver.fit(inputs.task, best.candidate, best.params)
    if not fitted.converged:
        judged.warnings.append("the last fit, on all training images, did not converge")
    drawn = draw_reference(len(train), best.candidate.dims, spec.seed)
    X = join(list(blocks_of(inputs.features, best.candidate.layers, train.rows[drawn]).values()))
    groups = None if train.groups is None else train.groups[drawn]
    bundle = Bundle(
        recipe=inputs.features.recipe,
        layers=best.candidate.layers,
        transform=best.candidate.transform,
        head=best.head,
        kind=fitted.kind,
        params=best.params,
        classes=inputs.data.classes,
        temperature=judged.temperature,
        arrays=fitted.arrays,
        conformal=judged.conformal,
        abstain=judged.abstain,
        open_set=fit_open_set(X, train.y[drawn], groups, n_seen=len(train), seed=spec.seed),
        model=fitted.estimator,
    )
    return bundle, fitted


def gather(spec: FitSpec, inputs: Inputs, judged: Judged, bundle: Bundle, progress: Progress) -> Evidence:
    """Test the bundle, look the data over, and put together what the run says."""
    features, data = inputs.features, inputs.data
    scores = scores_of(features, bundle, data.test.rows)
    hygiene, findings, more = inspect(
        features, data, inputs.twins, judged.probabilities, layer=bundle.layers[-1], layers=list(inputs.dims)
    )
    metrics = describe(spec, inputs, judged) | measure(spec, data, judged, scores)
    metrics["calibration"]["open_set"] = bundle.open_set.as_dict() if bundle.open_set else None
    hygiene["duplicates"]["without_cross_split"] = without_leaked(spec, inputs, judged, scores)
    curve, said = learning(inputs, judged, progress)
    answered = predicted_rows(features, data, data.test, softmax(scores / bundle.temperature))
    early, pictures = inputs.trouble, inputs.pictures(wanted_thumbnails(answered, findings))
    # The page looks at further images: what was not at hand is counted once, at the end.
    notes = [note for note in (*inputs.notes, *more, *said) if note not in early]
    metrics |= {
        "grouping": grouping(inputs.task, inputs.solver, judged.found.best, data.train, data.n_named_groups),
        "learning_curve": curve,
        "hygiene": hygiene,
        "notes": list(dict.fromkeys([*notes, *inputs.trouble])),
        "warnings": [*inputs.warnings, *judged.warnings, *harder(metrics)],
    }
    held_back = predicted_rows(features, data, data.train, judged.probabilities)
    return Evidence(metrics, answered, held_back, findings, pictures)
