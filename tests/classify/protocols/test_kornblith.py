import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from tiny_protocol import tiny_data

from classify.protocols import PROTOCOLS, Options
from classify.protocols.kornblith import SOLVER
from classify.protocols.logistic import linear_of
from extract.errors import FitError
from extract.recipe import Preprocessing

KORNBLITH = PROTOCOLS["kornblith"]


def reference(data, val):
    """The published loop, line by line: -> C, the refitted model, scores of the path."""
    X, y = data.X_train.astype(np.float64), data.y_train
    train = np.setdiff1d(np.arange(len(y)), val)
    model = LogisticRegression(solver="lbfgs", warm_start=True, max_iter=100)
    best_score, best_C, path = 0, None, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for decay in np.logspace(-6, 5, 45):
            model.set_params(C=1 / decay, tol=1e-4 / len(train)).fit(X[train], y[train])
            path.append(np.mean(model.predict(X[val]) == y[val]))
            if path[-1] > best_score:
                best_score, best_C = path[-1], 1 / decay
        model.set_params(C=best_C, tol=1e-4 / len(y)).fit(X, y)
    return best_C, model, path


def published_val(n):
    indices = list(range(n))
    np.random.RandomState(0).shuffle(indices)
    return np.array(indices[: int(np.floor(0.2 * n))])


def test_the_published_loop_is_followed():
    data = tiny_data()
    result = KORNBLITH.run(data)
    C, model, path = reference(data, published_val(90))
    predicted = model.predict(data.X_test.astype(np.float64))
    assert result.params == {"C": C}
    assert [row["score"] for row in result.tried] == path
    assert len(set(path)) > 3
    assert (result.predicted == predicted).all()
    assert result.value["value"] == np.mean(predicted == data.y_test)
    assert result.value["low"] < result.value["value"] < result.value["high"]
    assert result.scores == pytest.approx(result.linear.scores(data.X_test.astype(np.float64)))
    assert any("no validation split is given" in note for note in result.notes)


def test_the_validation_split_that_is_given_chooses():
    val = np.arange(90) >= 70
    data = tiny_data(validation=val)
    result = KORNBLITH.run(data)
    C, model, path = reference(data, np.flatnonzero(val))
    assert (result.params["C"], [row["score"] for row in result.tried]) == (C, path)
    # Equal to the last digits only where every fit starts from the one before.
    assert result.linear.coef == pytest.approx(model.coef_, rel=1e-9)


def test_equals_keep_the_weakest_penalty():
    data = tiny_data()
    data = replace(data, X_train=data.y_train[:, None] * np.float32([9.0, 0.0]), X_test=data.X_test[:, :2])
    result = KORNBLITH.run(data)
    top = max(row["score"] for row in result.tried)
    assert result.params["C"] == max(row["C"] for row in result.tried if row["score"] == top) == pytest.approx(1e6)
    assert any("edge of the published grid" in note for note in result.notes)


def test_the_solver_stops_by_the_gradient_of_the_sum_of_losses():
    data = tiny_data()
    X, y = data.X_train.astype(np.float64), data.y_train
    model = SOLVER.model()
    assert SOLVER.fit(model, X, y, 1.0)
    wrong = model.predict_proba(X) - (y[:, None] == np.arange(3))
    gradient = np.concatenate([wrong.T @ X + model.coef_, wrong.sum(axis=0)[:, None]], axis=1)
    assert 1e-7 < np.abs(gradient).max() <= 1e-4


def test_two_classes_have_a_vector_each_as_published():
    data = tiny_data(n_classes=2)
    X, y = data.X_train.astype(np.float64), data.y_train
    SOLVER.fit(model := SOLVER.model(), X, y, 0.05)

    def loss(flat):
        weights = flat.reshape(2, -1)
        chances = log_softmax(X @ weights[:, :-1].T + weights[:, -1], axis=1)
        return -chances[np.arange(len(y)), y].sum() + (weights[:, :-1] ** 2).sum() / (2 * 0.05)

    found = minimize(loss, np.zeros(2 * 9), tol=1e-10).x.reshape(2, -1)
    expected = X @ found[:, :-1].T + found[:, -1]
    scores = linear_of(model).scores(X)
    assert scores[:, 1] - scores[:, 0] == pytest.approx(expected[:, 1] - expected[:, 0], abs=1e-3)


def test_a_class_without_validation_images_is_told():
    data = tiny_data()
    data = replace(data, validation=(np.arange(90) >= 60) & (data.y_train != 2))
    result = KORNBLITH.run(data, options=Options(metric="balanced_accuracy"))
    assert any("1 of 3 classes have no image to choose by" in note for note in result.notes)
    assert all(0 <= row["score"] <= 1 for row in result.tried)


def test_a_class_that_only_validation_images_have_is_learned_in_the_refit():
    data = tiny_data()
    result = KORNBLITH.run(replace(data, validation=data.y_train == 2))
    assert result.linear.coef.shape == (3, 8)
    assert any("1 of 3 classes have no image to fit on" in note for note in result.notes)


@pytest.mark.parametrize("n", [2, 4])
def test_too_few_images_are_an_error_of_ours(n):
    with pytest.raises(FitError, match="too few"):
        KORNBLITH.run(tiny_data(n_train=n, n_classes=2))


def test_twice_the_same():
    one, two = KORNBLITH.run(tiny_data()), KORNBLITH.run(tiny_data())
    assert (one.scores == two.scores).all()
    assert one.value == two.value


@pytest.mark.parametrize(("kind", "said"), [("bicubic", False), ("bilinear", True)])
def test_images_that_were_resized_otherwise_are_told(kind, said):
    found = Preprocessing(224, 224, kind, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    notes = KORNBLITH.run(tiny_data(preprocessing=found)).notes
    assert any("resized otherwise" in note for note in notes) == said


def test_fits_that_did_not_converge_are_counted():
    data = tiny_data(dims=40)
    result = KORNBLITH.run(replace(data, X_train=data.X_train * 100, X_test=data.X_test * 100))
    unfinished = sum(not row["converged"] for row in result.tried)
    assert unfinished
    assert any(note.startswith(f"{unfinished} of 45 settings did not converge") for note in result.notes)
