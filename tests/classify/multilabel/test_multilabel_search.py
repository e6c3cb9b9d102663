import numpy as np
import pytest
from planted import planted
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classify.evaluate import draw_resamples
from classify.multilabel import search as searching
from classify.multilabel.data import read_multilabel
from classify.multilabel.search import refine, refit, scan, search
from classify.multilabel.split import make_folds
from classify.multilabel.trial import Task
from extract.progress import Silent


def task_of(features, *, room_bytes: int = 1 << 30, form: str = "area") -> Task:
    part = read_multilabel(features).train
    folds, _ = make_folds(part.Y, part.groups, 3, 0)
    return Task(features, part, folds, draw_resamples(len(part), part.groups, 0), form, room_bytes)


def one_vs_rest(C: float) -> OneVsRestClassifier:
    return OneVsRestClassifier(make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-8, max_iter=1000)))


def test_scores_out_of_fold_are_those_of_sklearns_one_vs_rest(make_features):
    task = task_of(planted(make_features))
    trials, _ = refine(task, ("late",), "std")
    X = task.features.read("late", task.part.rows).astype(np.float64)
    for trial in trials[:4]:
        for train, test in task.folds:
            model = one_vs_rest(trial.params["C"]).fit(X[train], task.part.Y[train].astype(int))
            np.testing.assert_allclose(trial.scores[test], model.decision_function(X[test]), atol=2e-2, rtol=1e-2)
        assert trial.value == pytest.approx(task.value(trial.scores))
        assert trial.converged
    assert len({trial.params["C"] for trial in trials}) == len(trials) >= 7


def test_the_refit_is_sklearns_on_all_rows(make_features):
    task = task_of(planted(make_features))
    trial = refine(task, ("late",), "std")[0][2]
    head, fine = refit(task, trial)
    X = task.features.read("late", task.part.rows).astype(np.float64)
    model = one_vs_rest(trial.params["C"]).fit(X, task.part.Y.astype(int))
    assert fine
    np.testing.assert_allclose(head.scores(X), model.decision_function(X), atol=1e-4, rtol=1e-4)


def test_the_scan_scores_each_row_by_the_others_but_for_their_mean(make_features):
    task = task_of(planted(make_features, 40))
    trial = scan(task, ("late",), "l2")
    X = task.features.read("late", task.part.rows).astype(np.float64)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    T = 2.0 * task.part.Y - 1
    expected = []
    for row in range(len(X)):
        others = np.arange(len(X)) != row
        model = Ridge(alpha=trial.params["alpha"]).fit(X[others], T[others])
        expected.append(model.predict(X[row : row + 1])[0] - T[others].mean(axis=0))
    np.testing.assert_allclose(trial.scores, expected, atol=1e-4)


def test_the_scan_finds_the_best_of_all_penalties_without_trying_each(make_features, monkeypatch):
    task = task_of(planted(make_features))
    found = scan(task, ("late",), "std")
    monkeypatch.setattr(searching, "STRIDES", (1,))
    best = scan(task, ("late",), "std")
    assert (found.value, found.params) == (best.value, best.params)


def test_labels_that_nothing_tells_are_ranked_at_chance_and_not_below(make_features):
    found = {True: [], False: []}
    for seed in range(6):
        features = planted(make_features, 100, seed=seed)
        features.X["late"] = np.random.default_rng(100 + seed).normal(size=(100, 4)).astype(np.float32)
        task = task_of(features)
        for corrected in found:
            with pytest.MonkeyPatch.context() as patch:
                if not corrected:
                    patch.setattr(searching, "_mean_of_others", lambda targets, _: np.zeros(targets.shape))
                found[corrected].append(scan(task, ("late",), "std").value - task.part.Y.mean())
    assert np.mean(found[True]) == pytest.approx(0, abs=0.02)
    assert np.mean(found[False]) < np.mean(found[True]) - 0.01


def test_streamed_and_grouped_rows_are_left_out_fold_by_fold_or_group_by_group(make_features):
    features = planted(make_features, 120, groups=[str(row // 3) for row in range(120)])
    held, streamed = scan(task_of(features), ("late",), "std"), scan(task_of(features, room_bytes=0), ("late",), "std")
    assert streamed.value == pytest.approx(held.value, abs=0.05)
    assert not np.array_equal(streamed.scores, held.scores)


def test_the_tap_that_tells_is_chosen_and_all_that_was_tried_is_kept(make_features):
    task = task_of(planted(make_features))
    found = search(task, ("early", "late"), ("std", "l2"), Silent())
    scanned = [trial for trial in found.trials if trial.head == "ridge"]
    assert [(trial.layers, trial.transform) for trial in scanned] == [
        (layers, transform) for layers in (("early",), ("late",), ("early", "late")) for transform in ("std", "l2")
    ]
    refined = {(trial.layers, trial.transform) for trial in found.trials if trial.head == "logistic"}
    assert len(refined) == searching.N_REFINED
    assert found.best.head == "logistic"
    assert "late" in found.best.layers
    best = max(trial.value for trial in found.trials if trial.head == "logistic")
    assert found.best.value <= best
    assert found.best.value > 0.8


def test_a_search_gives_the_same_again(make_features):
    features = planted(make_features, 80)
    first, second = (search(task_of(features), ("late",), ("std",), Silent()) for _ in range(2))
    assert first.best.params == second.best.params
    np.testing.assert_array_equal(first.best.scores, second.best.scores)
