"""Features -> a network trained further, with its evidence: the story of `fit --strategy`.

The linear probe comes first: it gives the folds, the head to begin with, and what the training is held against.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from classify.bundle import write_bundle
from classify.finetune.bench import Bench
from classify.finetune.deploy import deploy
from classify.finetune.evidence import OUT_OF_FOLD, VALIDATION, Course, Held, gather_tuned
from classify.finetune.ground import Ground, set_up, survey
from classify.finetune.plan import Setting, check_tuning
from classify.finetune.trained import Trained, train_one
from classify.folders import whole_folder
from classify.judged import Judged, calibrated
from classify.linear import Goal, Probe, begin_fit, fit_probe
from classify.runs import check_replaceable, write_evidence
from classify.spec import FitSpec
from extract.errors import FitError
from extract.progress import Watch


def fine_tune(spec: FitSpec, watch: Watch) -> dict[str, Any]:
    """Fit the probe, train without folds and on all, test and write a run; return the content of its metrics.json."""
    check_tuning(spec.strategy, spec.tune)
    inputs, goal = begin_fit(spec, watch)
    ground = survey(spec, inputs)
    inputs.tell(watch)
    probe = fit_probe(spec, inputs, watch)
    with set_up(spec, inputs, ground, probe, watch) as bench:
        return write_tuned(bench, ground, probe, goal)


def write_tuned(bench: Bench, ground: Ground, probe: Probe, goal: Goal) -> dict[str, Any]:
    """Train, test and write a run; what an earlier training of the same has done is not done again."""
    course = train_all(bench, ground)
    tuned = judge_tuned(bench, probe, course)
    with tempfile.TemporaryDirectory() as scratch:
        made = deploy(bench, ground.source, course.finals[0], course.test[0], tuned, Path(scratch))
        evidence = gather_tuned(bench, probe, course, tuned, made)
        goal.tell(evidence.metrics)
        check_replaceable(goal.folder)
        with whole_folder(goal.folder, FitError) as temporary:
            blocks = {bench.tap: made.rows}
            write_bundle(temporary / "bundle", made.bundle, weights=made.weights, blocks=blocks, expected=made.expected)
            write_evidence(temporary, evidence)
    bench.forget()
    return evidence.metrics


def train_all(bench: Bench, ground: Ground) -> Course:
    """Train without each fold, to answer for it, and then on all images; the first training finds the setting."""
    seed = bench.spec.seed
    folds: list[Trained] = []
    scores: list[np.ndarray] = []
    for at in range(len(ground.folds)):
        trained, said = train_fold(bench, ground, at, folds[0].setting if folds else None)
        folds.append(trained)
        scores.append(said)
    setting = folds[0].setting if folds else None
    finals = [train_one(bench, _named(0, ground), ground.last, seed, setting)]
    for repeat in range(1, ground.repeats):
        finals.append(train_one(bench, _named(repeat, ground), ground.last, seed + repeat, finals[0].setting))
    n_train, n_test = len(bench.inputs.data.train), len(bench.inputs.data.test)
    test = [bench.scores(trained.network, n_train + np.arange(n_test)) for trained in finals]
    return Course(folds, finals, test, _held(bench, ground, finals[0], scores))


def train_fold(bench: Bench, ground: Ground, at: int, setting: Setting | None) -> tuple[Trained, np.ndarray]:
    """Train without fold `at` and answer for it: -> the training, and scores (m, C); find a setting where none is."""
    split, held_out = ground.folds[at]
    trained = train_one(bench, f"without fold {at + 1}", split, bench.spec.seed, setting)
    return trained, bench.scores(trained.network, held_out)


def _named(repeat: int, ground: Ground) -> str:
    return f"on all images, {repeat + 1} of {ground.repeats}" if ground.repeats > 1 else "on all images"


def _held(bench: Bench, ground: Ground, last: Trained, scores: list[np.ndarray]) -> Held:
    """Put together what networks say of images that they were not fitted on, in the order of the training part."""
    if not ground.folds:
        return Held(ground.last.val, bench.scores(last.network, ground.last.val), VALIDATION)
    at = np.concatenate([held_out for _, held_out in ground.folds])
    order = np.argsort(at)
    return Held(at[order], np.concatenate(scores)[order], OUT_OF_FOLD)


def judge_tuned(bench: Bench, probe: Probe, course: Course) -> Judged:
    """Calibrate the trained network on what it was not fitted on."""
    train, held = bench.inputs.data.train, course.held
    groups = None if train.groups is None else train.groups[held.at]
    return calibrated(bench.spec, probe.judged.found, held.scores, train.y[held.at], groups)
