import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_parts import PRESET, maps, pixels, tiny_parts
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from classify.finetune.averaging import LARGEST_DECAY, Ema, interpolate, recalibrate
from classify.finetune.network import Network
from classify.finetune.plan import Plan, Setting
from classify.tuning import BN_MODES
from extract.errors import FitError, OptionError

PLAN = Plan(recipe="default", steps=3, batch_size=8, settings=())


def network(*, bn: str = "train", seed: int = 0) -> Network:
    return Network(tiny_parts(seed=seed), 3, PRESET, bn=bn)


def step(net: Network, seed: int) -> None:
    optimizer = torch.optim.SGD(net.groups(Setting(0.1, 0.01), PLAN))
    net.train()
    F.cross_entropy(net(pixels(seed=seed)), torch.arange(8) % 3).backward()
    optimizer.step()
    net.zero_grad()


def counts(state: dict[str, Tensor]) -> dict[str, int]:
    return {name: int(value) for name, value in state.items() if not value.is_floating_point()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_average_of_weights_is_that_of_the_formula():
    net, power = network(), 0.75
    ema = Ema(net, power)
    expected: dict[str, np.ndarray] = {}
    for t in range(6):
        step(net, t)
        ema.update()
        decay = 1 - (1 + t) ** -power
        for name, value in net.state().items():
            now = value.double().numpy()
            expected[name] = decay * expected[name] + (1 - decay) * now if t else now
    for name, value in ema.state().items():
        if value.is_floating_point():
            np.testing.assert_allclose(value.numpy(), expected[name], rtol=0, atol=1e-6, err_msg=name)
    assert ema.step == 6
    assert not same(ema.state(), net.state())


def test_the_first_step_is_taken_as_it_is_and_the_decay_has_an_end():
    net = network()
    ema = Ema(net, 0.75)
    step(net, 0)
    ema.update()
    assert same(ema.state(), net.state())
    decays = []
    for ema.step in (0, 1, 9999, 215_000, 10**7):
        decays.append(ema.decay)
    assert decays == [
        0,
        pytest.approx(1 - 2**-0.75),
        pytest.approx(0.999),
        pytest.approx(0.9999, abs=1e-6),
        LARGEST_DECAY,
    ]


def test_counts_are_copied_and_never_averaged():
    net = network(bn="train")
    ema, before = Ema(net, 0.75), net.state()
    for seed in range(4):
        step(net, seed)
        ema.update()
    assert counts(ema.state()) == counts(net.state()) == {name: value + 4 for name, value in counts(before).items()}
    assert all(ema.state()[name].dtype == torch.int64 for name in counts(before))
    assert {int(value) for value in counts(before).values()} == {7}
    mixed = interpolate(before, net.state(), 0.5)
    assert counts(mixed) == counts(net.state())


@pytest.mark.parametrize("bn", ["frozen", "affine", "recalibrate"])
def test_frozen_numbers_keep_their_bits_under_averaging_and_mixing(bn):
    net = network(bn=bn)
    ema, start, frozen = Ema(net, 0.75), net.state(), net.frozen_digest()
    for seed in range(4):
        step(net, seed)
        ema.update()
    with ema.applied():
        assert net.frozen_digest() == frozen
    net.load(interpolate(start, net.state(), 1 / 3))
    assert net.frozen_digest() == frozen


def test_a_network_computes_with_the_average_and_goes_on_with_its_own_weights():
    net = network()
    ema = Ema(net, 0.75)
    for seed in range(3):
        step(net, seed)
        ema.update()
    own, average = net.state(), ema.state()
    with ema.applied():
        assert same(net.state(), average)
    assert same(net.state(), own)
    with pytest.raises(ZeroDivisionError), ema.applied():
        raise ZeroDivisionError
    assert same(net.state(), own)
    assert same(ema.state(), average)


def test_an_average_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
    net = network()
    ema = Ema(net, 0.75)
    for seed in range(2):
        step(net, seed)
        ema.update()
    torch.save(ema.state_dict(), tmp_path / "average.pt")
    step(net, 2)
    ema.update()
    resumed = Ema(net, 0.75)
    resumed.load_state_dict(torch.load(tmp_path / "average.pt", weights_only=True))
    resumed.update()
    assert same(resumed.state(), ema.state())
    assert resumed.step == ema.step == 3


def test_what_is_no_average_of_this_network_is_refused():
    ema = Ema(network(), 0.75)
    for kept in ({"step": 1, "average": {}}, {"step": "1", "average": ema.state()}, {"step": 1, "average": 2}):
        with pytest.raises(FitError):
            ema.load_state_dict(kept)


def test_mixing_at_the_ends_gives_the_ends_to_the_bit():
    start, end = network(seed=0).state(), network(seed=1).state()
    assert same(interpolate(start, end, 1.0), end)
    floats = {name: value for name, value in start.items() if value.is_floating_point()}
    assert same({name: value for name, value in interpolate(start, end, 0.0).items() if name in floats}, floats)


@settings(max_examples=20)
@given(share=st.floats(0, 1))
def test_a_mix_of_weights_is_that_of_the_formula(share):
    start, end = network(seed=0).state(), network(seed=1).state()
    for name, value in interpolate(start, end, share).items():
        if value.is_floating_point():
            expected = (1 - share) * start[name].double() + share * end[name].double()
            torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)


def test_a_mix_is_a_copy_and_leaves_both_ends_alone():
    start, end = network(seed=0).state(), network(seed=1).state()
    mixed = interpolate(start, end, 0.5)
    for value in mixed.values():
        value.zero_()
    assert same(start, network(seed=0).state())
    assert same(end, network(seed=1).state())


def test_weights_that_do_not_match_are_not_mixed():
    state = network().state()
    with pytest.raises(FitError, match=r"head\.bias"):
        interpolate(state, {name: value for name, value in state.items() if name != "head.bias"}, 0.5)
    with pytest.raises(FitError, match=r"head\.bias"):
        interpolate(state, {**state, "head.bias": torch.zeros(1)}, 0.5)
    with pytest.raises(OptionError):
        interpolate(state, state, 1.5)


def without_dropout(net: Network) -> Network:
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


@pytest.mark.parametrize("bn", ["train", "recalibrate"])
def test_statistics_are_estimated_as_pytorch_does_it(bn):
    net, reference = network(bn=bn), without_dropout(network(bn="train"))
    batches = [maps(6, seed=seed) for seed in range(4)]
    recalibrate(net, batches)
    update_bn(batches, reference)
    for name, value in reference.live().items():
        torch.testing.assert_close(net.live()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert set(counts(net.state()).values()) == {4}


def test_statistics_of_unequal_batches_count_by_their_images():
    net, batches = network(), [maps(n, seed=n) for n in (2, 7, 4)]
    recalibrate(net, batches)
    given_to_it = net.tail.one.conv(torch.cat(batches)).double()
    expected_mean = given_to_it.mean((0, 2, 3))
    variances = [net.tail.one.conv(batch).double().var((0, 2, 3)) * len(batch) for batch in batches]
    norm = net.tail.one.bn
    torch.testing.assert_close(norm.running_mean.double(), expected_mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), sum(variances) / 13, rtol=0, atol=1e-6)


def test_estimating_changes_statistics_alone_and_restores_the_modes():
    net = network(bn="recalibrate").train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    momenta = [module.momentum for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    recalibrate(net, (pixels(4, seed=seed) for seed in range(2)))
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {name for name in net.live() if name.endswith(statistics)}
    assert [module.training for module in net.modules()] == modes
    assert [module.momentum for module in net.modules() if isinstance(module, nn.BatchNorm2d)] == momenta


def test_estimating_takes_neither_dropout_nor_memory_for_gradients(monkeypatch):
    net, reference, with_gradients = network().train(), network().eval(), []
    features = net.features
    monkeypatch.setattr(net, "features", lambda x: with_gradients.append(torch.is_grad_enabled()) or features(x))
    recalibrate(net, [maps()])
    recalibrate(reference, [maps()])
    assert with_gradients == [False]
    assert same(net.state(), reference.state())


def test_after_estimating_the_statistics_are_frozen():
    net = network(bn="recalibrate")
    recalibrate(net, [maps()])
    frozen = net.frozen_digest()
    for seed in range(3):
        step(net, seed)
    assert net.frozen_digest() == frozen


def test_a_batch_of_one_image_is_passed_over():
    net, reference = network(), network()
    recalibrate(net, [maps(4, seed=0), maps(1, seed=1), maps(4, seed=2)])
    recalibrate(reference, [maps(4, seed=0), maps(4, seed=2)])
    assert same(net.state(), reference.state())
    with pytest.raises(FitError, match="two images"):
        recalibrate(net, [maps(1)])


@pytest.mark.parametrize("bn", sorted(set(BN_MODES) - {"train", "recalibrate"}))
def test_statistics_that_are_to_stay_are_not_estimated(bn):
    net = network(bn=bn)
    before = net.state()
    with pytest.raises(FitError, match=bn):
        recalibrate(net, [maps()])
    assert same(net.state(), before)


def test_modes_and_momenta_are_restored_though_the_batches_fail():
    net = network().train()

    def failing():
        yield maps()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        recalibrate(net, failing())
    assert net.training
    assert {module.momentum for module in net.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}
