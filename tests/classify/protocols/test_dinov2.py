import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tiny_protocol import tiny_data

from classify.protocols import PROTOCOLS, Options
from classify.protocols.parts import torch_permutation


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
@pytest.mark.parametrize("seed", [0, 7, 2**31])
def test_rows_are_drawn_as_torch_draws_them(n, seed):
    generator = torch.Generator().manual_seed(seed)
    assert torch_permutation(n, seed).tolist() == torch.randperm(n, generator=generator).tolist()


def fitted(X, y, C):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(C=C, max_iter=1000, tol=1e-12).fit(X, y)


def test_c_and_predictions_are_those_of_the_plain_way():
    data = tiny_data()
    X, y = data.X_train.astype(np.float64), data.y_train
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0)).numpy()
    val, train = order[:9], order[9:]
    scores = {C: np.mean(fitted(X[train], y[train], C).predict(X[val]) == y[val]) for C in 10 ** np.linspace(-6, 5, 45)}
    best = max(scores, key=scores.__getitem__)
    result = PROTOCOLS["dinov2"].run(data)
    assert result.params == {"C": pytest.approx(best)}
    assert [row["score"] for row in result.tried] == list(scores.values())
    assert (result.predicted == fitted(X, y, best).predict(data.X_test.astype(np.float64))).all()


def test_equals_keep_the_strongest_penalty():
    data = tiny_data(n_classes=2)
    signs = 2 * data.y_train[:, None] - 1
    result = PROTOCOLS["dinov2"].run(replace(data, X_train=np.float32(signs), X_test=data.X_test[:, :1]))
    top = max(row["score"] for row in result.tried)
    assert result.params["C"] == min(row["C"] for row in result.tried if row["score"] == top)


@pytest.mark.parametrize("n_train", [90, 230])
def test_neighbours_vote_as_published(n_train):
    data = tiny_data(n_train=n_train)
    result = PROTOCOLS["dinov2-knn"].run(data)
    lengths = [np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12) for X in (data.X_train, data.X_test)]
    rows, Z = data.X_train.astype(np.float64) / lengths[0], data.X_test.astype(np.float64) / lengths[1]
    expected = {k: np.zeros((60, 3)) for k in (10, 20, 100, 200) if k <= n_train}
    for at, cosines in enumerate(Z @ rows.T):
        nearest = np.argsort(-cosines)[: max(expected)]
        weights = np.exp(cosines[nearest] / 0.07) / np.exp(cosines[nearest] / 0.07).sum()
        for k, shares in expected.items():
            shares[at] = np.bincount(data.y_train[nearest[:k]], weights=weights[:k], minlength=3)
    assert [row["k"] for row in result.tried] == list(expected)
    assert [row["score"] for row in result.tried] == [
        np.mean(shares.argmax(axis=1) == data.y_test) for shares in expected.values()
    ]
    assert (result.predicted == expected[20].argmax(axis=1)).all()
    assert result.params == {"k": 20, "temperature": 0.07}
    assert result.linear is None
    assert any("fixed beforehand" in note for note in result.notes)


def test_fewer_rows_than_neighbours():
    result = PROTOCOLS["dinov2-knn"].run(tiny_data(n_train=6))
    assert result.params["k"] == 6
    assert any("fewer training images than k = 10, 20, 100, 200" in note for note in result.notes)


def test_mean_per_class_is_the_mean_of_recalls():
    data = tiny_data()
    data = replace(data, y_test=np.where(data.y_test == 2, 1, data.y_test))
    result = PROTOCOLS["dinov2-knn"].run(data, options=Options(metric="balanced_accuracy"))
    recalls = [np.mean(result.predicted[data.y_test == code] == code) for code in (0, 1)]
    assert result.value["value"] == pytest.approx(np.mean(recalls))
    assert result.tried[1]["score"] == pytest.approx(np.mean(recalls))
