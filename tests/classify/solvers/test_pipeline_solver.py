import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from tiny_features import blobs
from tiny_task import candidate, tiny_task

from classify.heads import HEADS, Head, find_head
from classify.solvers import out_of_fold, solver_of
from classify.solvers.pipeline import Pipelines
from extract.progress import Silent


def recording(head: Head) -> tuple[Head, list[Pipeline]]:
    made: list[Pipeline] = []

    def build(value, seed, **known):
        made.append(head.build(value, seed, **known))
        return made[-1]

    return replace(head, build=build), made


def test_every_transform_sees_the_training_rows_of_its_fold_alone():
    y = np.arange(40) % 2
    X = blobs(y, 6)
    # Rows out of a fold are planted far away: standardising before the split would show in every mean.
    X[::4] += 1000
    head, made = recording(replace(HEADS["logistic"], grid=(0.01,), limits=None))
    task = tiny_task(y, {"tap": X})
    [trial] = Pipelines(head).refine(task, candidate(X), Silent())
    for (train, test), pipeline in zip(task.folds, made, strict=True):
        assert pipeline[0].mean_ == pytest.approx(X[train].mean(axis=0), rel=1e-5)
        assert (trial.predicted[test] == pipeline.predict(X[test])).all()


class Counted(Silent):
    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, what: str, total: int) -> None:
        self.total += total

    def advance(self, steps: int, bad: int = 0) -> None:
        self.done += steps


@pytest.mark.parametrize("head", ["linear-svm", "knn"])
def test_threads_change_no_number_and_progress_counts_every_fit(head):
    y = np.arange(60) % 3
    X = blobs(y, 10, distance=0.5)
    at, seen = candidate(X, HEADS[head].transforms[0]), Counted()
    one = Pipelines(HEADS[head]).refine(tiny_task(y, {"tap": X}), at, seen)
    two = Pipelines(HEADS[head]).refine(tiny_task(y, {"tap": X}, jobs=2), at, Silent())
    assert [trial.params for trial in one] == [trial.params for trial in two]
    assert all((a.predicted == b.predicted).all() for a, b in zip(one, two, strict=True))
    assert seen.done == seen.total == 4 * len(one)


def test_the_grid_is_left_while_that_pays_and_its_end_is_told():
    y = np.arange(8) % 2
    X = blobs(y, 2)
    kind = replace(HEADS["linear-svm"], limits=(1e-6, 10.0))
    solver = Graded(kind, lambda C: 0.5 + np.log10(C) / 20)
    trials = solver.refine(tiny_task(y, {"tap": X}, cv=2), candidate(X), Silent())
    assert [trial.params["C"] for trial in trials] == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10])
    assert [trial.at_limit for trial in trials] == [False] * 6 + [True]


def test_a_plateau_is_not_followed():
    y = np.arange(8) % 2
    X = blobs(y, 2)
    trials = Graded(HEADS["linear-svm"], lambda C: 1.0).refine(tiny_task(y, {"tap": X}, cv=2), candidate(X), Silent())
    assert len(trials) == 4
    assert not any(trial.at_limit for trial in trials)


class Graded(Pipelines):
    """Says what each value is worth, instead of fitting it."""

    def __init__(self, kind: Head, worth) -> None:
        super().__init__(kind)
        object.__setattr__(self, "worth", worth)

    def _trial(self, task, at, value, fits):
        found = super()._trial(task, at, value, fits)
        return replace(found, metrics={"accuracy": {"value": self.worth(value)}})


def test_a_fold_with_one_class_left_answers_with_it():
    y, groups = np.repeat([0, 1], 10), np.concatenate([np.zeros(10, np.int64), np.arange(10) + 1])
    X = blobs(y, 4)
    scores = out_of_fold(tiny_task(y, {"tap": X}, groups), candidate(X), {"C": 0.1}, Pipelines(HEADS["linear-svm"]))
    assert (scores[:10].argmax(axis=1) == 1).all()


def test_what_did_not_converge_is_recorded_and_warns_nobody():
    y = np.arange(40) % 2
    X = blobs(y, 4)

    def build(value, seed, **known):
        return HEADS["logistic"].build(value, seed, **known).set_params(logisticregression__max_iter=1)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        kind = replace(HEADS["logistic"], build=build)
        trials = Pipelines(kind).refine(tiny_task(y, {"tap": X}, jobs=2), candidate(X), Silent())
    assert not seen
    assert not any(trial.converged for trial in trials)


@pytest.mark.parametrize("name", [*HEADS, "sklearn.naive_bayes.GaussianNB"])
def test_every_head_learns_what_is_easy_from_two_images_of_a_class(name):
    y = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    X = blobs(y, 6, distance=20.0)
    X[:, 5] = 1.0  # a feature that never changes
    solver = solver_of(find_head(name))
    task, at = tiny_task(y, {"tap": X}, cv=2), candidate(X, solver.transforms[0])
    trials = solver.refine(task, at, Silent())
    best = max(trials, key=lambda trial: trial.metrics["accuracy"]["value"])
    assert best.metrics["accuracy"]["value"] >= 0.5
    assert solver.fit(task, at, best.params).expected.argmax(axis=1).tolist() == y.tolist()
