from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline

from classify.probe import ridge
from classify.probe.normal import Folds
from classify.probe.ridge import fit_ridge, fold_path, scan, targets
from classify.probe.rows import Rows, array_rows, stored_rows
from classify.probe.transforms import TRANSFORMS, make_steps, rowwise

ALPHAS = np.array([0.03, 1.0, 30.0, 1000.0])
TALL, WIDE = (90, 6), (24, 40)


def problem(shape: tuple[int, int], k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(shape[0]) % k)
    X = rng.normal(size=shape) * np.linspace(0.5, 4, shape[1]) + rng.normal(size=(k, shape[1]))[y] + 2
    X[:, 1], X[3] = 0.0, 0.0
    return X, y


def folds_of(y: np.ndarray, k: int = 3) -> Folds:
    return list(StratifiedKFold(k, shuffle=True, random_state=0).split(y, y))


def plain(transform: str, shape: tuple[int, int], model: RidgeClassifier | Ridge) -> Pipeline:
    return make_pipeline(*make_steps(transform, *shape), model)


def mapped(X: np.ndarray, transform: str) -> Rows:
    return array_rows(rowwise(transform, X))


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("k", [2, 3])
def test_folds_are_what_sklearn_fits_on_them(shape, transform, k):
    X, y = problem(shape, k)
    folds = folds_of(y)
    found = fold_path(mapped(X, transform), targets(y, k), folds, ALPHAS, transform)
    assert found.kind == "3 folds"
    for number, alpha in enumerate(ALPHAS):
        scores = found.scores(number)
        for train, test in folds:
            fitted = plain(transform, (len(train), shape[1]), RidgeClassifier(alpha=alpha)).fit(X[train], y[train])
            expected = fitted.decision_function(X[test])
            assert np.allclose(scores[test] if k > 2 else scores[test, 1], expected, rtol=0, atol=1e-8)
            assert np.array_equal(found.predicted[number, test], fitted.predict(X[test]))


def test_folds_may_leave_rows_out_and_train_on_any():
    X, y = problem(TALL)
    folds = [(np.arange(0, 40), np.arange(50, 60)), (np.arange(20, 75), np.arange(0, 15)), (np.arange(5, 30), [80])]
    found = fold_path(array_rows(X), targets(y, 3), folds, ALPHAS[1:2], "std")
    tested = np.concatenate([test for _, test in folds])
    for train, test in folds:
        fitted = plain("std", TALL, RidgeClassifier(alpha=ALPHAS[1])).fit(X[train], y[train])
        assert np.array_equal(found.predicted[0, test], fitted.predict(X[test]))
    rest = np.setdiff1d(np.arange(90), tested)
    assert (found.predicted[0, rest] == -1).all()
    assert np.isnan(found.scores(0)[rest]).all()


def test_many_folds_that_overlap_are_set_up_one_by_one():
    X, y = problem(TALL)
    rng = np.random.default_rng(0)
    folds = [(np.setdiff1d(rng.choice(90, 50, replace=False), [row]), np.array([row])) for row in range(6)]
    found = fold_path(array_rows(X), targets(y, 3), folds, ALPHAS[:1], "std")
    for train, test in folds:
        fitted = plain("std", TALL, RidgeClassifier(alpha=ALPHAS[0])).fit(X[train], y[train])
        assert np.array_equal(found.predicted[0, test], fitted.predict(X[test]))


def test_a_row_may_not_be_tested_twice():
    X, y = problem(TALL)
    folds = [(np.arange(10, 90), np.arange(10)), (np.arange(10, 90), np.arange(5))]
    with pytest.raises(ValueError, match="tested by two folds"):
        fold_path(array_rows(X), targets(y, 3), folds, ALPHAS, "std")


@pytest.mark.parametrize("shape", [TALL, WIDE])
def test_a_class_that_a_fold_lacks_never_wins_in_it(shape):
    X, y = problem(shape)
    y[y == 2] = 0
    folds = folds_of(y)
    y[folds[0][1]] = 2
    found = fold_path(array_rows(X), targets(y, 4), folds, np.array([1e-6, 1e9]), "none")
    assert not (found.predicted[:, folds[0][1]] == 2).any()
    assert (found.scores(0)[folds[0][1], 2] == -np.inf).all()
    assert not (found.predicted == 3).any()


def test_equals_go_to_the_first_class_as_in_sklearn():
    X, y = np.zeros((12, 3)), np.arange(12) % 2
    folds = [(np.arange(4, 12), np.arange(4)), (np.arange(8), np.arange(8, 12))]
    found = fold_path(array_rows(X), targets(y, 2), folds, ALPHAS, "none")
    expected = RidgeClassifier().fit(X[4:], y[4:]).predict(X[:4])
    assert (found.predicted[:, :4] == expected).all()
    assert (found.predicted[:, :4] == 0).all()


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("transform", ["std", "pow", "pcaw"])
def test_streamed_rows_give_what_rows_in_memory_do(make_features, shape, transform):
    X, y = problem(shape)
    X = X.astype(np.float32)
    features = make_features(y, ["a", "b", "c"], X={"t": X})
    streamed = replace(stored_rows(features, ("t",), transform, np.arange(len(X))), block_bytes=4 * shape[1] * 7)
    loaded = array_rows(rowwise(transform, X).astype(np.float64))
    folds, Y = folds_of(y), targets(y, 3)
    here, there = (fold_path(rows, Y, folds, ALPHAS, transform) for rows in (streamed, loaded))
    assert np.array_equal(here.predicted, there.predicted)
    assert np.allclose(here.scores(2), there.scores(2), atol=1e-7)
    one, other = (fit_ridge(rows, Y, 3.0, transform) for rows in (streamed, loaded))
    assert np.allclose(one.coef, other.coef, atol=1e-7)


def test_little_memory_for_coefficients_and_scores_changes_nothing(monkeypatch):
    X, y = problem(TALL)
    before = fold_path(array_rows(X), targets(y, 3), folds_of(y), None, "std")
    monkeypatch.setattr(ridge, "COEF_BYTES", 1)
    monkeypatch.setattr("classify.probe.path.SCORE_BYTES", 8 * 3 * 4)
    after = fold_path(array_rows(X), targets(y, 3), folds_of(y), None, "std")
    assert np.array_equal(before.predicted, after.predicted)


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("alpha", [0.1, 50.0])
def test_the_final_fit_is_sklearns(shape, transform, alpha):
    X, y = problem(shape)
    Y, new = targets(y, 3).astype(float), np.random.default_rng(5).normal(size=(8, shape[1]))
    found = fit_ridge(mapped(X, transform), Y, alpha, transform)
    fitted = plain(transform, shape, Ridge(alpha=alpha)).fit(X, Y)
    assert np.allclose(found.scores(rowwise(transform, new)), fitted.predict(new), rtol=0, atol=1e-8)
    if transform != "pcaw":
        assert np.allclose(found.coef, fitted[-1].coef_, rtol=0, atol=1e-6)
    assert (found.scale > 0).all()
    assert np.allclose(found.coef[:, 1], 0, rtol=0, atol=1e-12)


def test_single_precision_is_enough_for_sklearns_coefficients():
    X, y = problem((400, 12))
    X = X.astype(np.float32)
    found = fit_ridge(array_rows(X), targets(y, 3), 10.0, "std")
    fitted = plain("std", X.shape, Ridge(alpha=10.0)).fit(X.astype(np.float64), targets(y, 3).astype(float))
    assert np.allclose(found.coef, fitted[-1].coef_, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("largest", "transform", "kind"),
    [
        (None, "std", "exact leave-one-out"),
        (2, "pow", "exact leave-group-out (at most 2 rows a group)"),
        (45, "std", "2 folds: the largest group has 45 rows"),
        (None, "pcaw", "3 folds: whitening is fitted anew without the rows left out"),
    ],
)
def test_a_scan_says_how_it_left_rows_out(largest, transform, kind):
    X, y = problem(TALL)
    groups = None if largest is None else np.arange(90) // largest
    folds = list(GroupKFold(2).split(X, y, groups)) if largest == 45 else folds_of(y)
    found = scan(mapped(X, transform), targets(y, 3), folds, groups, transform)
    assert found.kind == kind
    assert found.predicted.shape == (31, 90)
    assert (found.predicted[10] == y).mean() > 0.5


def test_a_scan_of_streamed_rows_goes_by_folds(make_features):
    X, y = problem(TALL)
    rows = stored_rows(make_features(y, ["a", "b", "c"], X={"t": X.astype(np.float32)}), ("t",), "std", np.arange(90))
    assert scan(rows, targets(y, 3), folds_of(y), None, "std").kind == "3 folds: the rows are streamed"


def test_targets_are_plus_and_minus_one():
    assert targets(np.array([2, 0]), 3).tolist() == [[-1, -1, 1], [1, -1, -1]]
    assert targets(np.array([1]), 2).dtype == np.int8
