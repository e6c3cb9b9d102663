import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from classify.probe.moments import scalers
from classify.probe.rows import array_rows
from classify.probe.transforms import (
    TRANSFORMS,
    Standardiser,
    Whitener,
    candidates,
    make_steps,
    rowwise,
    whitened_dims,
)
from extract.errors import FitError


def some_rows(n: int = 30, dims: int = 6) -> np.ndarray:
    X = np.random.default_rng(1).normal(size=(n, dims)) * np.arange(1, dims + 1) + 3
    X[:, 0], X[2] = 5.0, 0.0
    X[2, 0] = 5.0
    return X


def pipeline(name: str, X: np.ndarray) -> Pipeline:
    steps = make_steps(name, *X.shape)
    return make_pipeline(*(steps or ["passthrough"]))


@pytest.mark.parametrize("name", ["std", "l2", "pow", "none"])
def test_both_roads_to_a_transform_meet(name):
    X = some_rows()
    rows = array_rows(rowwise(name, X))
    found = scalers(rows, np.ones((1, len(X)), bool), name)
    here = rows.take(np.arange(len(X))) - found.mean[0]
    there = pipeline(name, X).fit_transform(X)
    assert np.allclose(here / found.scale[0], there - there.mean(axis=0), rtol=0, atol=1e-12)


def test_standardising_is_sklearns_but_for_features_that_hardly_vary():
    X = some_rows()
    X[:, 1] = 1 + 1e-8 * X[:, 2]
    Z = Standardiser().fit_transform(X)
    expected = StandardScaler().fit_transform(X)
    assert (Z[:, :2] == 0).all()
    assert np.array_equal(Z[:, 2:], expected[:, 2:])
    assert expected[:, 1].std() == pytest.approx(1)


@pytest.mark.parametrize(("n", "dims"), [(40, 5), (6, 40)])
def test_whitening_is_sklearns_but_for_the_populations_variance(n, dims):
    X = np.random.default_rng(2).normal(size=(n, dims)) * np.linspace(1, 3, dims)
    k = whitened_dims(n, dims)
    ours, new = Whitener(n_components=k).fit(X), np.random.default_rng(3).normal(size=(7, dims))
    theirs = PCA(k, whiten=True, svd_solver="full").fit(X)
    assert ours.components_.shape == (k, dims)
    expected = theirs.transform(new) * np.sqrt(n / (n - 1))
    assert np.allclose(np.abs(ours.transform(new)), np.abs(expected), rtol=1e-9, atol=1e-12)
    assert np.allclose(np.cov(ours.transform(X).T, bias=True), np.eye(k), atol=1e-10)


def test_whitening_leaves_out_directions_without_variance():
    X = np.repeat(np.random.default_rng(4).normal(size=(4, 50)), 3, axis=0)
    fitted = Whitener(n_components=11).fit(X)
    assert fitted.components_.shape == (3, 50)
    assert np.abs(fitted.transform(X)).max() < 5


def test_whitening_rows_that_are_all_equal_leaves_nothing():
    assert Whitener().fit_transform(np.ones((4, 3))).shape == (4, 0)


@pytest.mark.parametrize("name", ["l2", "pow"])
def test_rows_get_length_1_and_zero_rows_stay(name):
    X = np.array([[3.0, -4.0], [0.0, 0.0]], np.float32)
    Z = rowwise(name, X)
    assert Z.dtype == np.float32
    assert np.linalg.norm(Z, axis=1) == pytest.approx([1, 0])
    assert (np.sign(Z) == np.sign(X)).all()


def test_l2_is_sklearns():
    X = some_rows()
    assert np.allclose(rowwise("l2", X), Normalizer().fit_transform(X), rtol=1e-14)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_steps_travel_to_other_processes_and_can_be_cloned(name):
    X = some_rows()
    fitted = pipeline(name, X).fit(X)
    expected = fitted.transform(X)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).transform(X), expected)  # noqa: S301 our own
    assert np.array_equal(clone(fitted).fit(X).transform(X), expected)


@pytest.mark.parametrize("estimator", [Standardiser(), Whitener(n_components=2)], ids=["std", "pcaw"])
def test_our_transformers_keep_sklearns_contract(estimator):
    check_estimator(estimator, on_skip=None)


def test_nothing_is_learnt_from_rows_that_are_not_fitted():
    X = some_rows()
    for name in ("std", "pcaw"):
        before = pipeline(name, X).fit(X[:20]).transform(X[20:25])
        X[25:] += 100
        assert np.array_equal(pipeline(name, X).fit(X[:20]).transform(X[20:25]), before)


def test_whitening_is_tried_only_where_features_are_many():
    assert candidates(100, 400) == ["std", "l2", "pow"]
    assert candidates(100, 401) == ["std", "l2", "pow", "pcaw"]
    assert (whitened_dims(100, 401), whitened_dims(10_000, 2048), whitened_dims(999, 64)) == (99, 256, 64)


def test_an_unknown_transform_names_the_nearest():
    with pytest.raises(FitError, match="nearest: 'pow'"):
        rowwise("power", np.ones((1, 1)))
