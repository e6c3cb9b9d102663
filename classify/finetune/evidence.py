"""What a fine-tuned run says: how it was trained, what it gains over the probe, and all that any run says."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from classify.calibrate import softmax
from classify.evaluate import METRICS, draw_resamples, values_of
from classify.evidence import gather, harder, held_back_rows, measure, predicted_rows, without_leaked
from classify.finetune.begin import part_of
from classify.finetune.bench import Bench
from classify.finetune.deploy import HEAD, Deployed, params_of
from classify.finetune.network import Network
from classify.finetune.trained import Trained
from classify.folds import Part, fold_of
from classify.judged import Judged
from classify.linear import Probe
from classify.report import wanted_thumbnails
from classify.runs import Evidence
from classify.statistics import paired

OUT_OF_FOLD = "out of fold"
VALIDATION = "validation part"
OF_PROBE = ("layers", "transform", "dims", "head", "params", "selection", "grouping", "cv", "test")
"""What a run says of its probe, beside what it says of the trained network."""


@dataclass(frozen=True, eq=False)
class Held:
    """Scores (m, C) of images that a network was not fitted on: positions `at` (m,) of the training part.

    `by` says how: out of fold, or those of the validation part, which said when to stop.
    """

    at: np.ndarray
    scores: np.ndarray
    by: str


@dataclass(frozen=True, eq=False)
class Course:
    """All that was trained: without each fold, and on all; `test` are the scores of the test part by seed."""

    folds: Sequence[Trained]
    finals: Sequence[Trained]
    test: Sequence[np.ndarray]
    held: Held


def gather_tuned(bench: Bench, probe: Probe, course: Course, tuned: Judged, deployed: Deployed) -> Evidence:
    """Put together what the run says: what the probe's would, and over it what is of the trained network."""
    spec, inputs, data = bench.spec, bench.inputs, bench.inputs.data
    beside = gather(spec, inputs, probe.judged, probe.bundle, probe.test, bench.log)
    part, scores = part_of(data.train, course.held.at), deployed.test
    metrics = beside.metrics | measure(spec, replace(data, train=part), tuned, scores)
    metrics["calibration"] |= {
        "open_set": deployed.bundle.open_set and deployed.bundle.open_set.as_dict(),
        "calibrated_on": course.held.by,
    }
    metrics["hygiene"]["duplicates"]["without_cross_split"] = without_leaked(spec, inputs, tuned, scores)
    answered = predicted_rows(inputs.features, data, data.test, softmax(scores / tuned.temperature))
    metrics |= {
        "baseline": beside.metrics["baseline"],
        "layers": [bench.tap],
        "transform": "none",
        "dims": deployed.rows.shape[1],
        "head": HEAD,
        "params": params_of(course.finals[0]),
        "selection": None,
        "grouping": None,
        "probe": {name: beside.metrics[name] for name in OF_PROBE} | {"seconds": round(probe.seconds, 3)},
        "gain": _gains(bench, probe, course, scores),
        "finetune": told(bench, course, str(metrics["metric"])),
        "notes": list(dict.fromkeys([*beside.metrics["notes"], *_notes(course)])),
        "warnings": list(dict.fromkeys([*inputs.warnings, *tuned.warnings, *harder(metrics)])),
    }
    folds = fold_of(inputs.task.folds[: len(course.folds)], len(inputs.task))[course.held.at]
    held_back = held_back_rows(inputs.features, data, part, tuned.probabilities, folds)
    pictures = inputs.pictures(wanted_thumbnails(answered, beside.findings))
    return Evidence(metrics, answered, held_back, beside.findings, pictures, bench.log.csv())


def _notes(course: Course) -> list[str]:
    said = [note for trained in (*course.folds, *course.finals) for note in trained.notes]
    if course.held.by != OUT_OF_FOLD:
        said.append(
            "no fold was trained without: probabilities are calibrated on the validation part, which chose when to "
            "stop, and are a little too sure"
        )
    return said


def _gains(bench: Bench, probe: Probe, course: Course, scores: np.ndarray) -> dict[str, Any]:
    """Compare with the probe on the same images: the test part, and what neither was fitted on, if there is any."""
    data, held = bench.inputs.data, course.held
    found = {"out_of_fold": None, "test": gain(data.test, scores, probe.test, bench.spec.seed)}
    if held.by == OUT_OF_FOLD:
        before = probe.judged.scores[held.at]
        found["out_of_fold"] = gain(part_of(data.train, held.at), held.scores, before, bench.spec.seed)
    return found


def gain(part: Part, scores: np.ndarray, before: np.ndarray, seed: int) -> dict[str, Any]:
    """Compare two scorings (n, C) of the same rows by every metric, groups whole: the differences, scores - before."""
    resamples, named = draw_resamples(len(part), part.groups, seed), (scores.argmax(axis=1), before.argmax(axis=1))
    found = {metric: paired(part.y, *named, resamples, metric) for metric in METRICS}
    return {metric: {"value": f.mean, "low": f.low, "high": f.high, "p": f.p} for metric, f in found.items()} | {
        "n": len(part)
    }


def told(bench: Bench, course: Course, metric: str) -> dict[str, Any]:
    """Return what metrics.json keeps of the trainings."""
    last, first = course.finals[0], [*course.folds, *course.finals][0]
    values = [float(values_of(bench.inputs.data.test.y, s.argmax(axis=1)[None])[metric][0]) for s in course.test]
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    n_kept, n_trained = _counts(last.network)
    return {
        "strategy": bench.spec.strategy,
        "tap": bench.tap,
        "kept_until": bench.until,
        "cached": bench.examples.cached,
        "device": asdict(bench.device),
        "plan": json.loads(json.dumps(asdict(bench.plan))),
        "search": first.trials,
        "chosen": asdict(last.setting),
        "trainings": [_row(each, deployed=each is last) for each in (*course.folds, *course.finals)],
        "history": last.outcome.history,
        "seeds": {"metric": metric, "values": values, "mean": float(np.mean(values)), "sd": spread},
        "frozen": {
            "parameters": n_kept,
            "trained": n_trained,
            "before": last.frozen,
            "after": last.network.frozen_digest(),
        },
        **bench.facts,
    }


def _row(trained: Trained, *, deployed: bool) -> dict[str, Any]:
    """Return what is said of one training."""
    outcome, split = trained.outcome, trained.split
    said = {
        "name": trained.name,
        "deployed": deployed,
        "seed": trained.seed,
        "n_train": len(split.train),
        "n_val": len(split.val),
    }
    ended = {"steps": outcome.step, "best_step": outcome.best_step, "seconds": round(outcome.seconds, 3)}
    return {
        **said,
        **ended,
        "val_loss": trained.val["loss"],
        "val_accuracy": trained.val["accuracy"],
        "share_of_end": trained.share,
    }


def _counts(network: Network) -> tuple[int, int]:
    """Count parameters: those that stay, and those that train."""
    trained = sum(value.numel() for value in network.parameters() if value.requires_grad)
    return sum(value.numel() for value in network.parameters()) - trained, trained
