import numpy as np
import pytest

from classify.hygiene import features as module
from classify.hygiene.features import _spread, dead_features


@pytest.fixture
def three_layers(make_features):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 6)).astype(np.float32)
    X[:, 1], X[:, 4] = 0, 2.5
    X[:, 2] = 1 + 1e-5 * X[:, 2]
    alive = rng.normal(size=(50, 3)).astype(np.float32)
    layers = {"layer1": X, "layer2": alive, "layer3": np.zeros((50, 2), np.float32)}
    return make_features(np.repeat([0, 1], 25), ["a", "b"], X=layers)


@pytest.mark.parametrize("block_bytes", [1, 7 * 24, 1 << 20])
def test_constant_features_are_found_over_blocks_of_any_size(
    three_layers, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    first, second, third = dead_features(three_layers, ["layer1", "layer2", "layer3"], np.arange(50))
    assert (first.layer, first.of) == ("layer1", 6)
    assert dict(zip(first.constant.tolist(), first.value.tolist(), strict=True)) == {1: 0.0, 4: 2.5}
    assert first.nearly.tolist() == [2]
    assert (len(second.constant), len(second.nearly), second.of) == (0, 0, 3)
    assert third.constant.tolist() == [0, 1]


def test_only_the_rows_asked_for_count(three_layers) -> None:
    three_layers.X["layer2"][:10, 1] = 7
    [found] = dead_features(three_layers, ["layer2"], np.arange(10))
    assert found.constant.tolist() == [1]
    assert found.value.tolist() == [7]


def test_the_spread_is_that_of_numpy_in_blocks(make_features, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 5 * 11)
    X = (1000 + np.random.default_rng(1).normal(size=(64, 5))).astype(np.float32)
    known = make_features(np.repeat([0, 1], 32), ["a", "b"], X={"penultimate": X})
    lowest, highest, spread = _spread(known, "penultimate", np.arange(64))
    np.testing.assert_array_equal(lowest, X.min(axis=0))
    np.testing.assert_array_equal(highest, X.max(axis=0))
    np.testing.assert_allclose(spread, X.astype(np.float64).std(axis=0), rtol=1e-9)
