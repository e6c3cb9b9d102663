from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tiny_features import blobs
from tiny_task import candidate, tiny_task

from classify.calibrate import softmax
from classify.probe.precondition import ROWS_PER_DIM
from classify.probe.rows import ArrayRows
from classify.probe.transforms import make_steps
from classify.scoring import ROWWISE, SCORERS
from classify.solvers import out_of_fold
from classify.solvers.softmax import Softmax, fallen
from classify.trials import Candidate, Trial
from extract.progress import Silent

SOLVER = Softmax()


def plain(X, train, transform, C, class_weight=None):
    steps = make_steps(transform, len(train), X.shape[1])
    return make_pipeline(*steps, LogisticRegression(C=C, tol=1e-9, max_iter=5000, class_weight=class_weight))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("transform", ["std", "l2", "pow", "pcaw"])
def test_scores_out_of_fold_are_those_of_sklearn_fitted_fold_by_fold(transform, n_classes):
    y = np.arange(60) % n_classes
    X = blobs(y, 70 if transform == "pcaw" else 9, distance=0.5)
    task = tiny_task(y, {"tap": X})
    shares = softmax(out_of_fold(task, candidate(X, transform), {"C": 0.5}, SOLVER))
    for train, test in task.folds:
        model = plain(X, train, transform, 0.5).fit(X[train].astype(np.float64), y[train])
        assert shares[test] == pytest.approx(model.predict_proba(X[test].astype(np.float64)), abs=5e-3)


def test_balanced_classes_are_weighed_anew_in_every_fold():
    y = np.repeat([0, 1, 2], [40, 12, 8])
    X = blobs(y, 6, distance=0.4)
    task = tiny_task(y, {"tap": X}, class_weight="balanced")
    shares = softmax(out_of_fold(task, candidate(X), {"C": 1.0}, SOLVER))
    for train, test in task.folds:
        model = plain(X, train, "std", 1.0, "balanced").fit(X[train].astype(np.float64), y[train])
        assert shares[test] == pytest.approx(model.predict_proba(X[test].astype(np.float64)), abs=5e-3)


@pytest.mark.parametrize("transform", ["std", "l2", "pow", "pcaw"])
def test_the_last_fit_is_a_formula_on_the_rows_themselves(transform):
    y = np.arange(40) % 3
    X = blobs(y, 200 if transform == "pcaw" else 8, distance=0.5)
    task = tiny_task(y, {"tap": X})
    fitted = SOLVER.fit(task, candidate(X, transform), {"C": 0.3})
    assert fitted.converged
    scores = SCORERS["linear"](fitted.arrays, ROWWISE[transform](X.astype(np.float64)))
    assert scores[fitted.at] == pytest.approx(fitted.expected, abs=1e-6)
    model = plain(X, y, transform, 0.3).fit(X.astype(np.float64), y)
    assert softmax(scores) == pytest.approx(model.predict_proba(X.astype(np.float64)), abs=1e-4)


def test_the_search_narrows_in_on_the_best_and_each_point_is_judged_on_the_same_folds():
    y = np.arange(80) % 4
    X = blobs(y, 10, distance=0.4)
    task = tiny_task(y, {"tap": X})
    trials = SOLVER.refine(task, candidate(X), Silent())
    Cs = sorted(trial.params["C"] for trial in trials)
    assert len(Cs) == len(set(Cs)) >= 11
    best = max(trials, key=lambda trial: trial.metrics["accuracy"]["value"])
    scores = out_of_fold(task, best.candidate, best.params, SOLVER)
    assert (scores.argmax(axis=1) == best.predicted).all()
    assert best.metrics == task.judge(best.predicted)


def test_weak_penalties_are_not_tried_once_scores_have_clearly_fallen():
    y = np.random.default_rng(0).integers(0, 2, 300)
    X = blobs(y, 100, distance=0.15)
    task = tiny_task(y, {"tap": X})
    trials = sorted(SOLVER.refine(task, candidate(X), Silent()), key=lambda trial: trial.params["C"])
    best = max(trials, key=lambda trial: trial.metrics["accuracy"]["value"])
    assert trials[-1].params["C"] < 1e6
    assert fallen(task, trials[-1], best)
    worse = replace(best, params={"C": 1e6}, predicted=predicted_at(task, best.candidate, 1e6))
    assert fallen(task, replace(worse, metrics=task.judge(worse.predicted)), best)


def predicted_at(task, where, C):
    return out_of_fold(task, where, {"C": C}, SOLVER).argmax(axis=1)


@pytest.mark.parametrize(("wrong", "expected"), [(0, False), (2, False), (30, True)])
def test_scores_have_fallen_where_the_paired_difference_is_over_two_standard_errors(wrong, expected):
    y = np.arange(100) % 2
    task = tiny_task(y, {"tap": blobs(y, 3)})
    best, other = (judged(task, np.concatenate([1 - y[:n], y[n:]])) for n in (1, 1 + wrong))
    assert fallen(task, other, best) == expected
    # The difference of two shares that differ in w of n rows has the variance w / n^2, less its square over n.
    assert (wrong / 100 > 2 * np.sqrt(wrong / 1e4 - (wrong / 100) ** 2 / 100)) == expected


def judged(task, predicted):
    return Trial(Candidate(("tap",), "std", 3, 0), "logistic", {"C": 1.0}, predicted, task.judge(predicted), 0.0)


@pytest.mark.parametrize("transform", ["std", "pcaw"])
def test_splits_may_overlap_in_any_way_and_their_rows_come_in_any_order(transform):
    y = np.arange(60) % 3
    X = blobs(y, 300 if transform == "pcaw" else 9, distance=0.5)
    task = tiny_task(y, {"tap": X})
    test = np.array([50, 3, 41])
    splits = [(np.arange(40), test), (np.arange(20), test), (np.arange(10, 40), np.array([59]))]
    together = SOLVER.scores(task, candidate(X, transform), {"C": 0.5}, splits)
    for split, scores in zip(splits, together, strict=True):
        train, at = split
        model = plain(X, train, transform, 0.5).fit(X[train].astype(np.float64), y[train])
        assert softmax(scores) == pytest.approx(model.predict_proba(X[at].astype(np.float64)), abs=5e-3)


def test_no_fold_is_taken_into_memory_as_a_whole():
    y = np.arange(200) % 3
    X = blobs(y, 9, distance=0.5)

    class Streamed(ArrayRows):
        def take(self, at):
            assert len(at) <= ROWS_PER_DIM * 9
            return super().take(at)

    task = tiny_task(y, {"tap": X})
    assert min(len(test) for _, test in task.folds) > ROWS_PER_DIM * 9
    streamed = replace(task, read=lambda layers, transform: Streamed(X, block_bytes=7 * X[0].nbytes))
    found, expected = (SOLVER.refine(each, candidate(X), Silent()) for each in (streamed, task))
    assert [trial.predicted.tolist() for trial in found] == [trial.predicted.tolist() for trial in expected]


def test_a_class_missing_from_a_fold_keeps_the_other_columns_in_place():
    y = np.repeat([0, 1, 2], 20)
    groups = np.concatenate([np.full(20, 0), np.arange(40) // 4 + 1])
    X = blobs(y, 8)
    scores = out_of_fold(tiny_task(y, {"tap": X}, groups), candidate(X), {"C": 0.1}, SOLVER)
    assert np.isfinite(scores).all()
    predicted = scores.argmax(axis=1)
    assert (predicted[:20] != 0).all()
    assert (predicted[20:] == y[20:]).mean() > 0.9
