from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from tiny_protocol import tiny_data

from classify.protocols import PROTOCOLS, Options
from classify.protocols.draws import draw_shots
from classify.protocols.few_shot import least_squares
from extract.errors import OptionError

FEW_SHOT = PROTOCOLS["few-shot"]


@pytest.mark.parametrize(("n", "dims"), [(6, 12), (80, 12)])
def test_the_closed_form_is_the_least_squares_of_the_plain_way(n, dims):
    data = tiny_data(n_train=n, dims=dims)
    X, y = data.X_train.astype(np.float64), data.y_train
    linear = least_squares(X, y, 3)
    Z = np.column_stack([(X - X.mean(axis=0)) / (X.std(axis=0) + 1e-5), np.full(n, 100.0)])
    # Ridge regression is least squares with sqrt(penalty) on the diagonal as further rows.
    more, targets = np.sqrt(1024.0) * np.eye(dims + 1), np.where(y[:, None] == np.arange(3), 1.0, -1.0)
    weights = np.linalg.lstsq(np.vstack([Z, more]), np.vstack([targets, np.zeros((dims + 1, 3))]))[0]
    assert linear.scores(X) == pytest.approx(Z @ weights)


def test_the_mean_over_draws_and_its_interval():
    data = tiny_data()
    result = FEW_SHOT.run(data, seed=2, options=Options(shots=4, draws=6))
    found = []
    for draw in range(6):
        rng = np.random.default_rng(2 + draw)
        rows = np.concatenate([rng.permutation(np.where(data.y_train == code)[0])[:4] for code in range(3)])
        scores = least_squares(data.X_train[rows].astype(np.float64), data.y_train[rows], 3).scores(data.X_test)
        found.append(np.mean(scores.argmax(axis=1) == data.y_test))
    assert [row["score"] for row in result.tried] == found
    interval = stats.t.interval(0.95, 5, loc=np.mean(found), scale=stats.sem(found))
    assert (result.value["low"], result.value["high"]) == pytest.approx(interval)
    assert result.value["value"] == pytest.approx(np.mean(found))
    assert result.params == {"shots": 4, "draws": 6, "head": "ridge", "l2": 1024.0}


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_regression_as_in_the_example_of_clip(n_classes):
    data = tiny_data(n_classes=n_classes)
    result = FEW_SHOT.run(data, options=Options(shots=5, head="logistic"))
    rows = draw_shots(data.y_train, 5, 0)
    plain = LogisticRegression(C=0.316, max_iter=1000, tol=1e-8).fit(data.X_train[rows], data.y_train[rows])
    assert (result.predicted == plain.predict(data.X_test)).all()
    assert result.params["C"] == 0.316


@given(st.integers(0, 99), st.integers(1, 6), st.integers(1, 6))
def test_draws_are_nested_and_have_so_many_of_each_class(seed, few, more):
    y = np.arange(40) % 3
    small, large = draw_shots(y, few, seed), draw_shots(y, few + more, seed)
    assert set(small) <= set(large)
    assert np.bincount(y[small]).tolist() == [few] * 3
    assert len(set(small)) == len(small)


def test_a_class_with_fewer_images_gives_them_all_and_is_named():
    y = np.array([0] * 9 + [1] * 2)
    assert np.bincount(y[draw_shots(y, 5, 0)]).tolist() == [5, 2]
    data = replace(tiny_data(n_train=11, n_classes=2), y_train=y)
    result = FEW_SHOT.run(data, options=Options(shots=5))
    assert [row["n"] for row in result.tried] == [7] * 5
    assert any("of 1 classes all images are taken" in note and "class 1 (2)" in note for note in result.notes)


@pytest.mark.parametrize("asked", [{"draws": 4}, {"shots": 0}, {"head": "svm"}])
def test_what_makes_no_sense_is_refused(asked):
    with pytest.raises(OptionError):
        Options(**asked)


def test_other_protocols_draw_no_images():
    with pytest.raises(OptionError, match="kornblith draws no images"):
        PROTOCOLS["kornblith"].run(tiny_data(), options=Options(shots=5))
