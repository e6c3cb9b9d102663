from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from tiny_features import tiny_recipe
from tiny_parts import PRESET, WIDTH, pixels, tiny_parts

from classify.finetune.head import EXACT, fold, prove_head, tolerance
from classify.finetune.network import Network
from classify.heads.affine import linear_arrays, steps_of
from classify.scoring import ABSENT, SCORERS
from extract.errors import FitError
from extract.recipe import Preprocessing

N = 60


def rows(n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of very different scales and means, one of them constant, and codes that hang on them."""
    rng = np.random.default_rng(seed)
    y = np.arange(N) % n_classes
    X = rng.normal(size=(N, WIDTH)) + y[:, None] * rng.normal(size=WIDTH)
    X = X * np.logspace(-2, 2, WIDTH) + np.linspace(-5, 5, WIDTH)
    X[:, 2] = 3.0
    return X, y


def probe(X: np.ndarray, y: np.ndarray, transform: str = "std") -> Pipeline:
    return make_pipeline(*steps_of(transform), LogisticRegression(C=1.0, max_iter=10_000)).fit(X, y)


@pytest.mark.parametrize("transform", ["std", "none", "pcaw"])
def test_a_folded_head_scores_rows_as_the_probe_does(transform):
    X, y = rows(4)
    pipeline = probe(X, y, transform)
    coef, intercept = fold(linear_arrays(pipeline), transform=transform)
    assert (coef.dtype, coef.shape, intercept.shape) == (np.float64, (4, WIDTH), (4,))
    np.testing.assert_allclose(X @ coef.T + intercept, pipeline.decision_function(X), rtol=0, atol=1e-9)


def test_the_one_row_of_a_binary_head_becomes_two_with_its_sigmoid_as_their_softmax():
    X, y = rows(2)
    pipeline = probe(X, y)
    model, scaler = pipeline[-1], pipeline[0]
    raw = {"mean": scaler.mean_, "scale": scaler.scale_, "coef": model.coef_, "intercept": model.intercept_}
    expected = pipeline.decision_function(X)
    for arrays in (raw, linear_arrays(pipeline)):
        coef, intercept = fold(arrays, transform="std")
        scores = X @ coef.T + intercept
        np.testing.assert_allclose(scores, np.stack([-expected / 2, expected / 2], 1), rtol=0, atol=1e-10)
        shares = torch.softmax(torch.from_numpy(scores), 1).numpy()
        np.testing.assert_allclose(shares, pipeline.predict_proba(X), rtol=0, atol=1e-10)


def test_a_dropped_feature_has_no_weight():
    X, y = rows(3)
    pipeline = probe(X, y)
    assert np.isinf(pipeline[0].scale_[2])
    coef, _ = fold(linear_arrays(pipeline), transform="std")
    assert not coef[:, 2].any()
    assert coef[:, [0, 1, 3, 4, 5]].all()


def test_a_class_that_the_probe_never_saw_begins_far_down_without_weights():
    X, y = rows(3)
    arrays = linear_arrays(probe(X, y))
    known_coef, known_intercept = fold(arrays, transform="std")
    arrays["coef"] = np.insert(arrays["coef"], 1, 5.0, axis=0)
    arrays["intercept"] = np.insert(arrays["intercept"], 1, -np.inf)
    coef, intercept = fold(arrays, transform="std")
    np.testing.assert_array_equal(coef, np.insert(known_coef, 1, 0.0, axis=0))
    expected = np.insert(known_intercept, 1, known_intercept.min() - ABSENT)
    np.testing.assert_allclose(intercept, expected, rtol=1e-12)


@pytest.mark.parametrize("transform", ["l2", "pow"])
def test_what_changes_rows_one_by_one_cannot_be_folded(transform):
    X, y = rows(3)
    with pytest.raises(FitError, match="none, std"):
        fold(linear_arrays(probe(X, y, transform)), transform=transform)


def test_an_unknown_transform_is_named():
    with pytest.raises(FitError, match="nearest: 'std'"):
        fold({}, transform="sdt")


def probed_network() -> tuple[Network, torch.Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """A network whose head is the probe's on its own features: (network, pixels, rows, scores, codes)."""
    net, x, y = Network(tiny_parts(), 3, PRESET, bn="frozen"), pixels(N), np.arange(N) % 3
    with torch.no_grad():
        X = net.features(x).numpy()
    pipeline = probe(X, y)
    arrays = linear_arrays(pipeline)
    net.set_head(*fold(arrays, transform="std"))
    return net, x, X, SCORERS["linear"](arrays, X), y


def test_a_network_says_what_the_probe_says_before_the_first_step():
    net, x, X, expected, _ = probed_network()
    net.train()
    apart = prove_head(net, x, X, expected)
    assert 0 <= apart < 1e-5
    assert net.training
    assert all(value.grad is None for value in net.parameters())
    with torch.no_grad():
        found = net.eval()(x).argmax(1).numpy()
    np.testing.assert_array_equal(found, expected.argmax(1))


def test_the_difference_is_a_share_of_the_spread_of_the_scores():
    net, x, X, expected, _ = probed_network()
    moved = expected.copy()
    moved[3, 1] += 0.01 * np.ptp(expected)
    assert prove_head(net, x, X, moved, allowed=0.02) == pytest.approx(0.01, rel=0.01)
    with pytest.raises(FitError, match=r"1\.0e-02"):
        prove_head(net, x, X, moved)


def test_a_head_with_its_classes_in_another_order_is_caught():
    net, x, X, expected, _ = probed_network()
    coef, intercept = net.head_arrays()
    net.set_head(coef[[1, 0, 2]], intercept[[1, 0, 2]])
    with pytest.raises(FitError, match="features agree"):
        prove_head(net, x, X, expected)


def test_another_preprocessing_is_caught():
    net, x, X, expected, _ = probed_network()
    net.preset = Preprocessing(12, 12, "bilinear", (0.5, 0.5, 0.5), (0.2, 0.25, 0.3))
    with pytest.raises(FitError, match="so do the features"):
        prove_head(net, x, X, expected)


def test_moved_statistics_of_batchnorm_and_another_order_of_rows_are_caught():
    net, x, X, expected, _ = probed_network()
    with pytest.raises(FitError, match="so do the features"):
        prove_head(net, x.flip(0), X, expected)
    net.tail.one.bn.running_mean.add_(0.1)
    with pytest.raises(FitError, match="so do the features"):
        prove_head(net, x, X, expected)


def test_what_is_not_finite_or_of_another_shape_is_caught_and_the_mode_restored():
    net, x, X, expected, _ = probed_network()
    net.train()
    with pytest.raises(FitError):
        prove_head(net, x[:5], X, expected)
    with pytest.raises(FitError):
        prove_head(net, x, X, expected[:, :2])
    with pytest.raises(FitError, match="inf"):
        prove_head(net, x, X, np.where(np.arange(3) == 1, np.nan, expected))
    with torch.no_grad():
        net.head.bias[0] = torch.nan
    with pytest.raises(FitError, match="inf"):
        prove_head(net, x, X, expected)
    assert net.training


def test_classes_that_the_probe_never_saw_are_not_compared():
    net, x, X, expected, _ = probed_network()
    expected[:, 1] = -np.inf
    assert prove_head(net, x, X, expected) < EXACT
    coef, intercept = net.head_arrays()
    net.set_head(coef + np.array([[0.1], [0], [0]]), intercept)
    with pytest.raises(FitError):
        prove_head(net, x, X, expected)


def test_rows_kept_as_float16_need_their_tolerance_and_it_suffices():
    net, x, X, _, y = probed_network()
    half = X.astype(np.float16).astype(np.float32)
    arrays = linear_arrays(probe(half, y))
    net.set_head(*fold(arrays, transform="std"))
    allowed = tolerance(replace(tiny_recipe(["penultimate"]), precision="fp32", store="float16"))
    assert prove_head(net, x, half, SCORERS["linear"](arrays, half), allowed=allowed) < allowed


def test_the_tolerance_is_that_of_the_coarsest_rounding():
    recipe = replace(tiny_recipe(["penultimate"]), precision="fp32", store="float32")
    assert tolerance(recipe) == EXACT == 1e-4
    assert tolerance(replace(recipe, store="float16")) == 2e-2
    assert tolerance(replace(recipe, tf32=True)) == 1e-2
    assert tolerance(replace(recipe, precision="bf16", store="float16")) == 5e-2
