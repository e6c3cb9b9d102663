import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from classify.advise.shift import Moments, check_norms, shift, shifts, watched
from classify.finetune.network import norms
from extract.errors import FitError
from extract.forward import Extractor, build_extractor, freeze
from extract.spec import BackboneSpec
from tests.tiny import tiny_spec

MAPS = torch.randn(25, 5, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 100


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_moments_are_those_of_all_that_was_added(sizes):
    moments, maps = Moments(), MAPS[: sum(sizes)].contiguous(memory_format=torch.channels_last)
    for part in maps.split(sizes):
        moments.add(part)
    whole = maps.double().numpy()
    np.testing.assert_allclose(moments.mean, whole.mean(axis=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(moments.variance, whole.var(axis=(0, 2, 3)), rtol=1e-5)


def test_moments_of_rows_are_those_of_columns():
    moments, rows = Moments(), MAPS[:, :, 0, 0]
    moments.add(rows)
    np.testing.assert_allclose(moments.variance, rows.double().numpy().var(axis=0), rtol=1e-5)


def norm_of(mean: list[float], variance: list[float], eps: float = 0.0) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(len(mean), eps=eps)
    norm.running_mean, norm.running_var = torch.tensor(mean), torch.tensor(variance)
    return norm


def moments_of(mean: list[float], variance: list[float]) -> Moments:
    moments = Moments()
    spread = torch.tensor(variance).sqrt()
    moments.add(torch.stack([torch.tensor(mean) - spread, torch.tensor(mean) + spread]))
    return moments


def test_the_shift_is_the_distance_in_learned_standard_deviations():
    """Of channel 0: means 3 apart, deviations 2 and 6, so 5 / 2; channel 1 is as it was."""
    assert shift(norm_of([1.0, 7.0], [4.0, 9.0]), moments_of([4.0, 7.0], [36.0, 9.0])) == pytest.approx((2.5 + 0) / 2)


def test_a_channel_that_never_says_anything_has_no_shift():
    assert shift(norm_of([0.0], [0.0], eps=1e-5), moments_of([0.0], [0.0])) == 0


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    """The built-in network as it was trained, down to its last layer."""
    return build_extractor(tiny_spec("", "", backbone=BackboneSpec("builtin"), taps=("layer2", "penultimate")))


def pixels(n: int = 10, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def batches(*sizes: int) -> Iterator[torch.Tensor]:
    return iter(pixels(sum(sizes)).split(sizes))


def test_shifts_are_those_of_the_inputs_of_every_layer(extractor):
    """The inputs kept whole, and measured by numpy."""
    kept: dict[str, np.ndarray] = {}
    for name, norm in norms(extractor.cut.module).items():
        hook = norm.register_forward_pre_hook(lambda _, x, name=name: kept.update({name: x[0].double().numpy()}))
        extractor.exact(pixels())
        hook.remove()
    found = {each["layer"]: each["shift"] for each in shifts(extractor, batches(4, 5, 1))}
    assert found.keys() == kept.keys() == norms(extractor.cut.module).keys()
    for name, norm in norms(extractor.cut.module).items():
        mean, deviation = kept[name].mean(axis=(0, 2, 3)), np.sqrt(kept[name].var(axis=(0, 2, 3)) + norm.eps)
        learned, spread = norm.running_mean.numpy(), np.sqrt(norm.running_var.numpy() + norm.eps)
        expected = (np.sqrt((mean - learned) ** 2 + (deviation - spread) ** 2) / spread).mean()
        assert found[name] == pytest.approx(expected, rel=1e-4), name


def test_layers_come_in_the_order_of_execution(extractor):
    found = [each["layer"] for each in shifts(extractor, batches(2))]
    assert found[0] == "bn1"
    assert found.index("layer2.0.bn1") < found.index("layer2.0.bn2") < found.index("layer3.0.bn1")


def test_watching_changes_no_bit_of_any_row_nor_any_weight(extractor):
    module = extractor.cut.module
    state = {name: value.clone() for name, value in module.state_dict().items()}
    before = extractor.exact(pixels())
    with watched(module):
        during = extractor.exact(pixels())
    after = extractor.exact(pixels())
    for name, rows in before.items():
        assert np.array_equal(rows, during[name])
        assert np.array_equal(rows, after[name])
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert not any(norm._forward_pre_hooks for norm in norms(module).values())


def test_what_works_in_place_behind_a_layer_is_not_seen():
    network = freeze(nn.Sequential(norm_of([0.0], [4.0]), nn.ReLU(inplace=True)))
    with watched(network) as seen:
        network(torch.tensor([[-3.0], [3.0]])[:, :, None, None])
    assert seen["0"].mean.tolist() == [0.0]


def test_images_that_the_statistics_are_of_have_no_shift_and_darker_ones_do(extractor):
    ours = copy.deepcopy(extractor)
    found = norms(ours.cut.module).values()
    for norm in found:
        norm.train().momentum = 1.0  # one batch, and its statistics are the running ones
    ours.exact(pixels())
    for norm in found:
        norm.eval()
    same, darker = (
        [each["shift"] for each in shifts(ours, iter([images]))] for images in (pixels(), pixels(seed=1) // 2)
    )
    assert max(same) < 0.01  # a running variance is over n - 1
    assert min(darker) > 0.05
    assert darker[0] > 0.5


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)),
        nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False)),
    ],
)
def test_a_network_without_statistics_has_no_shift(network):
    with pytest.raises(FitError, match="no BatchNorm"):
        check_norms(network)


def test_a_network_that_was_never_trained_has_no_shift(extractor):
    check_norms(extractor.cut.module)
    with pytest.raises(FitError, match="never trained"):
        check_norms(nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(3)))
    check_norms(nn.Sequential(nn.BatchNorm2d(4), norm_of([0.1], [1.0])))
