import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from tiny_features import blobs

from classify.dataset import Part, make_folds
from classify.evaluate import draw_resamples
from classify.heads import HEADS, Head
from classify.search import Search, Trial


def plan(y: np.ndarray, head: str | Head = "logistic", groups: np.ndarray | None = None, **known) -> Search:
    head = HEADS[head] if isinstance(head, str) else head
    folds, _ = make_folds(Part(np.arange(len(y)), y, groups), 4, 0)
    return Search(head, "accuracy", y, folds, draw_resamples(len(y), groups, 0), int(y.max()) + 1, **known)


def recording(head: Head) -> tuple[Head, list[Pipeline]]:
    made: list[Pipeline] = []

    def build(value, seed):
        made.append(head.build(value, seed))
        return made[-1]

    return replace(head, build=build), made


def test_every_transform_sees_the_training_rows_of_its_fold_alone():
    y = np.arange(40) % 2
    X = blobs(y, 6).astype(np.float64)
    # Rows out of a fold are planted far away: standardising before the split would show in every mean.
    X[::4] += 1000
    head, made = recording(replace(HEADS["logistic"], grid=(0.01,), limits=None))
    search = plan(y, head)
    best, _ = search.run(["a"], lambda layer: X)
    for (train, test), pipeline in zip(search.folds, made, strict=True):
        assert pipeline[0].mean_ == pytest.approx(X[train].mean(axis=0))
        assert best.scores[test] == pytest.approx(
            np.stack([-pipeline.decision_function(X[test]) / 2, pipeline.decision_function(X[test]) / 2], axis=1)
        )


def test_noise_is_found_to_be_noise():
    rng = np.random.default_rng(0)
    best, trials = plan(np.arange(200) % 2).run(["a"], lambda layer: rng.normal(size=(200, 30)))
    within = [trial.metrics["accuracy"]["low"] <= 0.5 <= trial.metrics["accuracy"]["high"] for trial in trials]
    assert all(within)
    assert best.metrics["balanced_accuracy"]["low"] <= 0.5 <= best.metrics["balanced_accuracy"]["high"]


class Counted:
    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, what: str, total: int) -> None:
        self.total += total

    def advance(self, steps: int) -> None:
        self.done += steps


@pytest.mark.parametrize("head", ["logistic", "knn"])
def test_threads_change_no_number_and_progress_counts_every_fit(head):
    y = np.arange(60) % 3
    X = blobs(y, 10, distance=0.5)
    seen = Counted()
    one, trials = plan(y, head).run(["a"], lambda layer: X, seen)
    two, again = plan(y, head, jobs=2).run(["a"], lambda layer: X)
    assert one.value == two.value
    assert (one.scores == two.scores).all()
    assert [t.metrics for t in trials] == [t.metrics for t in again]
    assert seen.done == seen.total == 4 * len(trials)


def trial(layer: str, dims: int, value: float, accuracy: float) -> Trial:
    return Trial(layer, dims, value, {"accuracy": {"value": accuracy}}, 0.0, True, np.empty((0, 2)))


def test_equals_go_to_the_smaller_then_to_the_more_regularised():
    search = plan(np.arange(8) % 2)
    trials = [trial("deep", 64, 0.1, 0.9), trial("small", 8, 0.1, 0.9), trial("small", 8, 0.01, 0.9)]
    assert search.best([*trials, trial("worse", 2, 0.01, 0.8)]) is trials[2]
    ridge = plan(np.arange(8) % 2, "ridge")
    assert ridge.best([trial("a", 8, 10.0, 0.9), trial("a", 8, 100.0, 0.9)]).value == 100.0


def test_the_grid_is_left_while_that_pays_and_its_end_is_told(monkeypatch):
    search = plan(np.arange(8) % 2, replace(HEADS["logistic"], limits=(1e-6, 10.0)))
    monkeypatch.setattr(
        Search,
        "_try",
        lambda self, layer, X, values, count: [trial(layer, 2, v, 0.5 + np.log10(v) / 20) for v in values],
    )
    best, trials = search.run(["a"], lambda layer: np.zeros((8, 2)))
    assert [t.value for t in trials] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1, 10])
    assert best.value == 10
    assert best.at_limit
    assert sum(t.at_limit for t in trials) == 1


def test_a_plateau_is_not_followed(monkeypatch):
    monkeypatch.setattr(Search, "_try", lambda self, layer, X, values, count: [trial(layer, 2, v, 1.0) for v in values])
    best, trials = plan(np.arange(8) % 2).run(["a"], lambda layer: np.zeros((8, 2)))
    assert len(trials) == 4
    assert (best.value, best.at_limit) == (1e-4, False)


def test_a_class_missing_from_a_fold_keeps_the_other_columns_in_place():
    y = np.repeat([0, 1, 2], 20)
    groups = np.concatenate([np.full(20, 0), np.arange(40) // 4 + 1])
    best, _ = plan(y, "logistic", groups).run(["a"], lambda layer: blobs(y, 8))
    predicted = best.scores.argmax(axis=1)
    assert (predicted[:20] != 0).all()
    assert (predicted[20:] == y[20:]).mean() > 0.9


def test_a_fold_with_one_class_left_answers_with_it():
    y, groups = np.repeat([0, 1], 10), np.concatenate([np.zeros(10), np.arange(10) + 1])
    best, _ = plan(y, "logistic", groups).run(["a"], lambda layer: blobs(y, 4))
    assert (best.scores[:10].argmax(axis=1) == 1).all()


def test_what_did_not_converge_is_recorded_and_warns_nobody():
    y = np.arange(40) % 2

    def build(value, seed):
        return HEADS["logistic"].build(value, seed).set_params(logisticregression__max_iter=1)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        _, trials = plan(y, replace(HEADS["logistic"], build=build), jobs=2).run(["a"], lambda layer: blobs(y, 4))
    assert not seen
    assert not any(t.converged for t in trials)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_learns_what_is_easy_from_two_images_of_a_class(head):
    y = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    X = blobs(y, 6, distance=20.0)
    X[:, 5] = 1.0  # a feature that never changes
    folds, _ = make_folds(Part(np.arange(8), y, None), 5, 0)
    search = Search(HEADS[head], "macro_f1", y, folds, draw_resamples(8, None, 0), 3)
    best, _ = search.run(["a"], lambda layer: X)
    assert best.metrics["accuracy"]["value"] >= 0.5
