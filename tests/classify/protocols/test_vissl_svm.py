import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC
from tiny_protocol import tiny_data

from classify.protocols import PROTOCOLS, Options
from classify.protocols.draws import draw_shots
from classify.protocols.vissl_svm import COSTS
from extract.errors import FitError, OptionError

VISSL = PROTOCOLS["vissl-svm"]


def svm(cost, seed=0):
    return LinearSVC(C=cost, class_weight={1: 2, -1: 1}, dual=True, max_iter=2000, random_state=seed)


def unit(X):
    X = X.astype(np.float64)
    return X / (np.linalg.norm(X, axis=1) + 1e-5)[:, None]


def plain_ap(positive, scores):
    """Average over the positive rows of the best precision from there on."""
    hits = positive[np.argsort(scores)[::-1]]
    precision = [hits[: at + 1].mean() for at in range(len(hits))]
    return np.mean([max(precision[at:]) for at in np.flatnonzero(hits)])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_costs_and_scores_are_those_of_the_plain_way(n_classes):
    data = tiny_data(n_train=40, n_classes=n_classes)
    result = VISSL.run(data)
    Z, Z_test = unit(data.X_train), unit(data.X_test)
    precisions = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for code, name in enumerate(data.classes):
            labels = np.where(data.y_train == code, 1, -1)
            found = [cross_val_score(svm(C), Z, labels, cv=3, scoring="average_precision").mean() for C in COSTS]
            assert [row["score"] for row in result.tried if row["class"] == name] == pytest.approx(found)
            assert result.params["cost"][name] == COSTS[int(np.argmax(found))]
            scores = svm(result.params["cost"][name]).fit(Z, labels).decision_function(Z_test)
            assert result.scores[:, code] == pytest.approx(scores)
            precisions.append(plain_ap(data.y_test == code, scores))
    assert result.value["value"] == pytest.approx(np.mean(precisions))
    assert result.value["low"] < result.value["value"] < result.value["high"]


def test_the_linear_head_takes_rows_of_length_one():
    data = tiny_data(n_train=30)
    result = VISSL.run(data)
    assert result.transform == "l2"
    rows = data.X_test / np.linalg.norm(data.X_test, axis=1, keepdims=True)
    assert result.linear.scores(rows) == pytest.approx(result.scores, rel=1e-3, abs=1e-3)


def test_low_shot_takes_the_cost_that_is_best_over_the_draws():
    data = tiny_data(n_train=30, n_test=20)
    result = VISSL.run(data, seed=4, options=Options(shots=3))
    Z, Z_test = unit(data.X_train), unit(data.X_test)
    found = np.empty((5, len(COSTS)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for draw in range(5):
            rows = draw_shots(data.y_train, 3, 4 + draw)
            for at, cost in enumerate(COSTS):
                fits = [svm(cost, 4).fit(Z[rows], np.where(data.y_train[rows] == code, 1, -1)) for code in range(3)]
                each = [plain_ap(data.y_test == c, fit.decision_function(Z_test)) for c, fit in enumerate(fits)]
                found[draw, at] = np.mean(each)
    best = found.mean(axis=0).argmax()
    assert result.params == {"cost": COSTS[best], "shots": 3, "draws": 5}
    assert result.value["value"] == pytest.approx(found[:, best].mean())
    assert any("optimistic" in note for note in result.notes)


def test_rare_classes_are_fitted_and_told():
    data = tiny_data(n_train=40)
    y = np.array([2, 1, 1, *([0] * 37)])
    result = VISSL.run(replace(data, y_train=y))
    assert result.params["cost"]["class 2"] == 0.01
    assert result.linear.coef.shape == (3, 8)
    assert any("2 classes have fewer than 3 images" in note for note in result.notes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = np.where(y == 1, 1, -1)
        plain = [cross_val_score(svm(C), unit(data.X_train), labels, cv=3, scoring="average_precision") for C in COSTS]
    assert [row["score"] for row in result.tried if row["class"] == "class 1"] == pytest.approx(np.mean(plain, axis=1))


def test_a_class_without_test_images_is_left_out_of_the_mean():
    data = tiny_data(n_train=30)
    data = replace(data, y_test=np.where(data.y_test == 2, 1, data.y_test))
    result = VISSL.run(data)
    each = [plain_ap(data.y_test == code, result.scores[:, code]) for code in (0, 1)]
    assert result.value["value"] == pytest.approx(np.mean(each))
    assert any("1 of 3 classes have no test image" in note for note in result.notes)


def test_what_it_cannot_do_is_told():
    with pytest.raises(FitError, match="4 images for 3 folds"):
        VISSL.run(tiny_data(n_train=4, n_classes=2))
    with pytest.raises(OptionError, match="no metric of vissl-svm 'accuracy'"):
        VISSL.run(tiny_data(), options=Options(metric="accuracy"))
    with pytest.raises(FitError, match="no test image is of a class"):
        VISSL.run(replace(tiny_data(), y_test=np.full(60, 3)))
