from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from classify.advise import leep as module
from classify.advise.leep import leep, source_shares
from extract.backbones import builtin, open_backbone, read_state
from extract.channel import Crew
from extract.errors import FitError
from extract.forward import normalise
from extract.loader import Loader, Sight
from extract.run import extract
from extract.sources import open_source
from extract.spec import BackboneSpec
from extract.store.reader import FeatureSet
from extract.taps import open_trunk
from tests.tiny import features_of, tiny_folder, tiny_spec


def shares_of(n: int, sources: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(sources, 0.5), size=n)


def plainly(shares: np.ndarray, y: np.ndarray) -> float:
    """The definition, one image and one source class after the other."""
    n, sources = shares.shape
    logs = []
    for i in range(n):
        predicted = 0.0
        for z in range(sources):
            joint = sum(shares[j, z] for j in range(n) if y[j] == y[i]) / n
            mass = sum(shares[j, z] for j in range(n)) / n
            predicted += joint / mass * shares[i, z] if mass else 0.0
        logs.append(np.log(predicted))
    return float(np.mean(logs))


@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 1000))
def test_leep_is_its_definition_and_at_most_0(n, sources, seed):
    y = np.random.default_rng(seed).integers(0, 4, n) * 3
    found = leep(shares_of(n, sources, seed), y)
    assert found == pytest.approx(plainly(shares_of(n, sources, seed), y), abs=1e-12)
    assert found <= 1e-12


def test_source_classes_that_nobody_has_a_share_of_change_nothing():
    shares, y = shares_of(20, 4), np.arange(20) % 3
    with_empty = np.insert(shares, [0, 2, 4], 0.0, axis=1)
    assert leep(with_empty, y) == pytest.approx(leep(shares, y), abs=1e-12)


def test_a_source_that_tells_all_scores_0_and_one_that_tells_nothing_what_the_classes_do():
    y = np.repeat([0, 1], [30, 10])
    assert leep(np.eye(2)[y], y) == 0
    assert leep(np.full((40, 5), 0.2), y) == pytest.approx((30 * np.log(0.75) + 10 * np.log(0.25)) / 40)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, FeatureSet]:
    """A folder of images, and their features by the built-in network as it was trained; nobody may change them."""
    folder = tmp_path_factory.mktemp("leep")
    data = tiny_folder(folder / "photos", per_class=4)
    return data, features_of(extract(tiny_spec(data, folder / "cache", weights="CIFAR10")))


def whole_network_says(data: Path, features: FeatureSet) -> dict[str, np.ndarray]:
    """The probabilities by the network as it was published, run on the images: {id: (10,)}."""
    backbone, records = open_backbone(BackboneSpec("builtin")), open_source(str(data)).records
    network = backbone.network
    network.load_state_dict(backbone.read(), assign=True)
    network.float()
    with Loader(Sight.of(features.recipe), workers=1, batch_size=len(records)) as given, Crew() as crew:
        [batch] = given.run(records, crew)
        images = normalise(batch.buffer.pixels[: len(records)].clone(), features.recipe.preprocessing)
    with torch.no_grad():
        shares = network(images).softmax(dim=1).numpy()
    return {record.id: row for record, row in zip(batch.records, shares, strict=True)}


def test_shares_from_cached_rows_are_what_the_whole_network_says(made):
    data, features = made
    rows = np.array([5, 0, 3])
    said = whole_network_says(data, features)
    found = source_shares(features, rows)
    assert found.shape == (3, 10)
    np.testing.assert_allclose(found, [said[features.ids[row]] for row in rows], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_weights_of_anyone_have_no_classifier(tmp_path, made):
    features = features_of(extract(tiny_spec(made[0], tmp_path)))
    with pytest.raises(FitError, match="none of the published"):
        source_shares(features, np.arange(2))


def test_weights_need_not_have_counted_their_batches(made, monkeypatch):
    state = read_state(builtin.HERE / "cifar_resnet14.safetensors")
    older = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert len(older) < len(state)
    expected = source_shares(made[1], np.arange(2))
    backbone = SimpleNamespace(read=lambda: older)
    monkeypatch.setattr(module, "open_backbone", lambda spec: backbone)
    assert np.array_equal(source_shares(made[1], np.arange(2)), expected)
    changed = older | {"bn1.running_mean": older["bn1.running_mean"] + 1}
    backbone.read = lambda: changed
    with pytest.raises(FitError, match="none of the published"):
        source_shares(made[1], np.arange(2))


def test_features_without_the_layer_below_the_classifier_have_no_shares(tmp_path, made):
    features = features_of(extract(tiny_spec(made[0], tmp_path, weights="CIFAR10", taps=("layer3",))))
    with pytest.raises(FitError, match="penultimate"):
        source_shares(features, np.arange(2))


def test_a_network_that_ends_in_a_convolution_has_no_shares(made):
    recipe = replace(made[1].recipe, model="torchvision:squeezenet1_1")
    with pytest.raises(FitError, match="linear classifier"):
        source_shares(SimpleNamespace(recipe=recipe), np.arange(2))


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.drop(x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))))


@pytest.mark.parametrize("model", ["alexnet", "googlenet", "efficientnet_b0"])
def test_the_classifier_is_the_last_linear_layer(model):
    network = open_backbone(BackboneSpec(model, "none")).network
    last = {"alexnet": "classifier.6", "googlenet": "fc", "efficientnet_b0": "classifier.1"}[model]
    assert module._classifier(open_trunk(network), network) == last


def test_the_classifier_of_a_network_watched_from_outside_is_found_too():
    network = Untraceable()
    assert module._classifier(open_trunk(network), network) == "last"
