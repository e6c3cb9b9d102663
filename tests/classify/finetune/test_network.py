from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_parts import PRESET, WIDTH, maps, pixels, tiny_parts
from torch import Tensor, nn
from torch.nn import functional as F

from classify.finetune.network import Network
from classify.finetune.plan import Plan, Setting
from classify.tuning import BN_MODES
from extract.backbones import open_skeleton
from extract.errors import FitError, OptionError
from extract.parts import TAIL, Parts, fresh_state, open_parts, whole_state
from extract.recipe import Recipe, Tap
from extract.taps import Cut, open_trunk

CLASSES = 3
PLAN = Plan(recipe="default", steps=3, batch_size=8, settings=())


def network(*, bn: str = "frozen", trunk: bool = True, seed: int = 0) -> Network:
    return Network(tiny_parts(trunk=trunk, seed=seed), CLASSES, PRESET, bn=bn)


def steps(net: Network, optimizer: torch.optim.Optimizer | None = None, *, n: int = 3, bf16: bool = False) -> None:
    """Some steps of a training, each in training mode again, with momentum and weight decay."""
    optimizer = optimizer or sgd(net)
    for step in range(n):
        net.train()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(pixels(seed=step))
        F.cross_entropy(logits, torch.arange(8) % CLASSES).backward()
        optimizer.step()
        net.eval()


def sgd(net: Network) -> torch.optim.SGD:
    return torch.optim.SGD(net.groups(Setting(0.1, 0.01), PLAN), momentum=0.9, nesterov=True)


def changed(net: Network, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


def copied(net: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def names(net: Network, *endings: str) -> set[str]:
    return {name for name in net.live() if name.endswith(endings)}


AFFINE = ("bn.weight", "bn.bias")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
MAY_CHANGE = {
    "frozen": (),
    "affine": AFFINE,
    "train": (*AFFINE, *STATISTICS),
    "recalibrate": (),
}
ALWAYS = ("conv.weight", "head.weight", "head.bias")


@pytest.mark.parametrize("bn", BN_MODES)
@pytest.mark.parametrize("bf16", [False, True])
def test_training_changes_what_the_mode_of_batchnorm_says_and_nothing_else(bn, bf16):
    net = network(bn=bn)
    before, frozen = copied(net), net.frozen_digest()
    steps(net, bf16=bf16)
    assert changed(net, before) == names(net, *ALWAYS, *MAY_CHANGE[bn])
    assert net.frozen_digest() == frozen


@pytest.mark.parametrize("bn", BN_MODES)
def test_a_network_without_a_trunk_obeys_the_mode_all_the_way_down(bn):
    net = network(bn=bn, trunk=False)
    before = copied(net)
    steps(net)
    assert changed(net, before) == names(net, *ALWAYS, *MAY_CHANGE[bn])


@pytest.mark.parametrize("bn", BN_MODES)
def test_the_digest_hangs_on_every_frozen_number_and_on_no_other(bn):
    net = network(bn=bn)
    frozen, changing = net.frozen_digest(), names(net, *ALWAYS, *MAY_CHANGE[bn])
    for name, value in net.state_dict().items():
        kept = value.clone()
        value.add_(1)
        assert (net.frozen_digest() == frozen) == (name in changing), name
        value.copy_(kept)
    assert net.frozen_digest() == frozen


@settings(max_examples=25)
@given(
    bn=st.sampled_from(BN_MODES),
    deeds=st.lists(st.sampled_from(["train", "eval", "step", "forward", 0, 1, 2, None]), max_size=8),
)
def test_nothing_that_a_training_does_changes_what_is_frozen(bn, deeds):
    net = network(bn=bn)
    frozen, optimizer = net.frozen_digest(), sgd(net)
    for deed in deeds:
        if deed == "step":
            steps(net, optimizer, n=1)
        elif deed == "forward":
            net(pixels())
        elif isinstance(deed, str):
            net.train(deed == "train")
        else:
            net.unfreeze(deed)
    assert net.frozen_digest() == frozen


@pytest.mark.parametrize("bn", BN_MODES)
def test_training_mode_never_reaches_the_trunk_nor_frozen_statistics(bn):
    net = network(bn=bn)
    for mode in (True, False, True):
        assert net.train(mode) is net
        assert net.training == mode
        assert not any(module.training for module in net.trunk.modules())
        moving = [module.training for module in net.tail.modules() if isinstance(module, nn.BatchNorm2d)]
        assert moving == [mode and bn == "train"] * 2
        assert net.tail.one.drop.training == mode
    assert not any(value.requires_grad for value in net.trunk.parameters())


def test_dropout_is_off_in_the_trunk_and_on_in_the_tail():
    net, x = network().train(), pixels()
    assert torch.equal(net.inputs(x), net.inputs(x))
    assert not torch.equal(net.features(x), net.features(x))
    trained = net.inputs(x)
    assert torch.equal(trained, net.eval().inputs(x))
    assert torch.equal(net.features(x), net.features(x))


@pytest.mark.parametrize("bn", BN_MODES)
def test_saving_and_loading_leave_the_digest_as_it_was(bn, tmp_path):
    net = network(bn=bn)
    steps(net)
    frozen = net.frozen_digest()
    save_file(net.state(), tmp_path / "state.safetensors")
    other = network(bn=bn, seed=0)
    other.load(load_file(tmp_path / "state.safetensors"))
    other.train()
    assert other.frozen_digest() == frozen
    assert torch.equal(other.eval()(pixels()), net.eval()(pixels()))


def test_a_state_is_a_copy_and_of_tail_and_head_only():
    net = network()
    state = net.state()
    kept = {name: value.clone() for name, value in state.items()}
    steps(net)
    assert {name.split(".")[0] for name in state} == {"tail", "head"}
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    net.load(state)
    assert all(torch.equal(value, kept[name]) for name, value in net.live().items())


def test_loading_keeps_modes_and_the_tensors_that_an_optimizer_holds():
    net = network()
    net.unfreeze(1)
    held = [value for group in sgd(net).param_groups for value in group["params"]]
    net.train().load(network(seed=1).state())
    assert {id(value) for value in held} <= {id(value) for value in net.parameters()}
    assert net.training
    assert not net.tail.one.conv.weight.requires_grad


def test_weights_of_another_network_are_refused():
    net = network()
    state = net.state()
    with pytest.raises(FitError, match=r"tail\.one\.bn\.bias"):
        net.load({name: value for name, value in state.items() if name != "tail.one.bn.bias"})
    with pytest.raises(FitError, match="strange"):
        net.load({**state, "strange": torch.zeros(1)})
    with pytest.raises(FitError, match=r"head\.bias"):
        net.load({**state, "head.bias": torch.zeros(1)})  # it could be spread over all classes
    assert all(torch.equal(value, state[name]) for name, value in net.live().items())


def test_a_trunk_that_could_change_is_refused_by_name():
    net = network()
    net.trunk.zero.bn.train()
    with pytest.raises(FitError, match=r"zero\.bn"):
        net(pixels())
    net.eval()
    net.trunk.zero.conv.weight.requires_grad_(True)
    with pytest.raises(FitError, match=r"zero\.conv"):
        net(pixels())


def test_cached_maps_give_the_logits_and_gradients_of_the_images():
    net, x, y = network(), pixels(), torch.arange(8) % CLASSES
    net.set_head(np.random.default_rng(0).normal(size=(CLASSES, WIDTH)), np.zeros(CLASSES))
    cached = net.inputs(x)
    results = []
    for given_x in (x, cached):
        net.zero_grad()
        logits = net(given_x)
        F.cross_entropy(logits, y).backward()
        results.append([logits.detach(), *(value.grad for value in net.parameters() if value.grad is not None)])
    assert len(results[0]) == 5  # logits, two convolutions and the head
    for whole, from_cache in zip(*results, strict=True):
        torch.testing.assert_close(from_cache, whole, rtol=0, atol=1e-7)


def test_pixels_are_normalised_by_the_preset():
    net, x = network(trunk=False), pixels()
    expected = (x.double() / 255 - torch.tensor(PRESET.mean).view(3, 1, 1)) / torch.tensor(PRESET.std).view(3, 1, 1)
    torch.testing.assert_close(net.inputs(x).double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(net(net.inputs(x)), net(x))
    assert x.dtype == torch.uint8
    assert torch.equal(x, pixels())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_maps_stay_as_they_are_though_layers_work_in_place(dtype):
    parts = tiny_parts()
    tail = nn.Sequential(nn.Hardswish(inplace=True), parts.tail.module).eval()
    blocks = tuple(tuple(f"1.{name}" for name in block) for block in parts.blocks)
    inside = replace(parts, tail=Cut(tail, lambda x: {TAIL: tail(x)}), blocks=blocks)
    net, x = Network(inside, CLASSES, PRESET, bn="frozen"), maps().to(dtype)
    assert net(x).dtype == torch.float32
    assert torch.equal(x, maps().to(dtype))


def test_logits_are_float32_under_autocast():
    net = network()
    net.set_head(np.random.default_rng(0).normal(size=(CLASSES, WIDTH)), np.zeros(CLASSES))
    with torch.autocast("cpu", torch.bfloat16):
        found, rows = net(maps()), net.features(maps())
    assert (found.dtype, rows.dtype) == (torch.float32, torch.float32)
    assert torch.equal(found, net.head(rows))
    assert not torch.equal(found, net(maps()))


def test_the_head_begins_with_zeros_and_takes_a_fitted_one():
    net = network()
    assert torch.equal(net(pixels()), torch.zeros(8, CLASSES))
    coef, intercept = np.random.default_rng(0).normal(size=(CLASSES, WIDTH)), np.arange(3.0)
    net.set_head(coef, intercept)
    kept_coef, kept_intercept = net.head_arrays()
    assert (kept_coef.dtype, kept_intercept.dtype) == (np.float64, np.float64)
    np.testing.assert_array_equal(kept_coef, coef.astype(np.float32))
    np.testing.assert_array_equal(kept_intercept, intercept)
    rows = net.features(pixels()).detach().double().numpy()
    np.testing.assert_allclose(net(pixels()).detach().numpy(), rows @ coef.T + intercept, rtol=0, atol=1e-5)
    net.zero_head()
    assert torch.equal(net(pixels()), torch.zeros(8, CLASSES))
    assert kept_coef.any()


@pytest.mark.parametrize(
    ("coef", "intercept"),
    [
        (np.zeros((1, WIDTH)), np.zeros(1)),
        (np.zeros((CLASSES, WIDTH + 1)), np.zeros(CLASSES)),
        (np.zeros((CLASSES, WIDTH)), np.zeros(1)),
        (np.zeros((CLASSES, WIDTH)), np.array([0, 0, -np.inf])),
        (np.full((CLASSES, WIDTH), np.nan), np.zeros(CLASSES)),
    ],
)
def test_a_head_that_does_not_fit_is_refused(coef, intercept):
    with pytest.raises(FitError):
        network().set_head(coef, intercept)


def test_an_unknown_mode_of_batchnorm_is_refused():
    with pytest.raises(OptionError, match="frozen"):
        network(bn="frosen")


@pytest.mark.parametrize(("n_blocks", "closed"), [(0, ("one", "two")), (1, ("one",)), (2, ()), (9, ()), (None, ())])
def test_only_the_top_blocks_train_and_those_below_are_frozen_altogether(n_blocks, closed):
    net = network(bn="train")
    net.unfreeze(n_blocks)
    before = copied(net)
    steps(net)
    expected = names(net, *ALWAYS, *MAY_CHANGE["train"])
    assert changed(net, before) == {name for name in expected if name.split(".")[1] not in closed}
    net.train()
    assert net.tail.one.drop.training == ("one" not in closed)
    assert net.tail.two.block.drop.training == ("two" not in closed)


def test_blocks_that_are_closed_again_do_not_drift_on_old_gradients_momentum_or_decay():
    net = network(bn="train")
    optimizer = sgd(net)
    steps(net, optimizer)
    F.cross_entropy(net(pixels()), torch.zeros(8, dtype=torch.int64)).backward()
    net.unfreeze(0)
    before = copied(net)
    optimizer.step()
    steps(net, optimizer)
    assert changed(net, before) == {"head.weight", "head.bias"}


def flat_parts() -> Parts:
    """A tail of layers side by side, with dropout before each convolution, as the classifiers of AlexNet and VGG."""
    layers = [nn.Dropout(), nn.Conv2d(4, 5, 3), nn.Dropout(), nn.Conv2d(5, WIDTH, 3), nn.Dropout()]
    tail = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    blocks = (("1.weight", "1.bias"), ("3.weight", "3.bias"))
    return replace(tiny_parts(), tail=Cut(tail, lambda x: {TAIL: tail(x)}), blocks=blocks)


@pytest.mark.parametrize(
    ("n_blocks", "active"),
    [(None, [True, True, True]), (2, [True, True, True]), (1, [False, False, True]), (0, [False, False, False])],
)
def test_dropout_below_the_lowest_layer_that_trains_is_off(n_blocks, active):
    net = Network(flat_parts(), CLASSES, PRESET, bn="train")
    net.unfreeze(n_blocks)
    net.train()
    assert [module.training for module in net.tail if isinstance(module, nn.Dropout)] == active


def test_a_trunk_is_frozen_however_it_comes():
    parts = tiny_parts()
    parts.trunk.module.train().requires_grad_(True)
    net = Network(parts, CLASSES, PRESET, bn="train")
    frozen = net.frozen_digest()
    steps(net)
    assert net.frozen_digest() == frozen


def test_unfreezing_in_training_mode_takes_effect_at_once():
    net = network(bn="train").train()
    net.unfreeze(1)
    assert net.training
    assert not net.tail.one.bn.training
    net.unfreeze(None)
    assert net.tail.one.bn.training


def test_rates_fall_from_the_head_down_and_plain_parameters_do_not_decay():
    net = network(bn="affine")
    plan = Plan(recipe="default", steps=1, batch_size=1, settings=(), head_rate=10.0, layer_decay=0.5)
    groups = net.groups(Setting(0.1, 0.02), plan)
    by_value = {id(value): name for name, value in net.named_parameters()}
    found = {by_value[id(value)]: (group["lr"], group["weight_decay"]) for group in groups for value in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found)
    assert all(group["initial_lr"] == group["lr"] for group in groups)
    assert found == {
        "head.weight": (1.0, 0.02),
        "head.bias": (1.0, 0.0),
        **{f"tail.two.block.{name}": (0.05, 0.0) for name in ("bn.weight", "bn.bias")},
        "tail.two.block.conv.weight": (0.05, 0.02),
        **{f"tail.one.{name}": (0.025, 0.0) for name in ("bn.weight", "bn.bias")},
        "tail.one.conv.weight": (0.025, 0.02),
    }


def test_the_head_alone_decays_where_the_plan_says_so():
    net = network(bn="affine")
    plan = replace(PLAN, decay_below_head=False)
    decays = {
        id(value): group["weight_decay"] for group in net.groups(Setting(0.1, 0.02), plan) for value in group["params"]
    }
    assert {name for name, value in net.named_parameters() if decays.get(id(value))} == {"head.weight"}


def test_scales_of_channels_do_not_decay():
    parts = tiny_parts()
    tail = parts.tail.module
    tail.register_parameter("layer_scale", nn.Parameter(torch.ones(4, 1, 1)))
    net = Network(replace(parts, blocks=(("layer_scale", *parts.blocks[0]), parts.blocks[1])), 3, PRESET, bn="frozen")
    decays = {
        id(value): group["weight_decay"] for group in net.groups(Setting(0.1, 0.02), PLAN) for value in group["params"]
    }
    assert decays[id(tail.layer_scale)] == 0
    assert decays[id(tail.one.conv.weight)] == 0.02


@pytest.mark.parametrize("bn", BN_MODES)
def test_groups_hold_all_that_may_ever_train_whatever_is_closed_now(bn):
    net = network(bn=bn)
    net.unfreeze(0)
    held = {id(value) for group in net.groups(Setting(0.1, 0.0), PLAN) for value in group["params"]}
    wanted = names(net, *ALWAYS, *(MAY_CHANGE[bn][:2]))
    assert held == {id(value) for name, value in net.named_parameters() if name in wanted}
    assert len(net.groups(Setting(0.1, 0.0), PLAN)) == 1  # what is treated alike is one group: fewer launches on a GPU


@pytest.mark.parametrize("bn", BN_MODES)
def test_a_traced_network_trains_above_its_cut_alone_and_is_the_whole_one_again(bn):
    whole = open_trunk(open_skeleton("builtin"))
    preset = replace(PRESET, resize_size=32, crop_size=32)
    tap = Tap("penultimate", "avg")
    recipe = Recipe("builtin", "0" * 64, (tap,), (whole.penultimate(),), preset, "plain", "fp32", "float32")
    before = fresh_state(recipe, tap="penultimate", seed=0)
    parts = open_parts(recipe, before, tap="penultimate", until="layer2")
    net, x = Network(parts, CLASSES, preset, bn=bn), pixels(8).repeat(1, 1, 3, 3)[:, :, :32, :32]
    optimizer, frozen = sgd(net), net.frozen_digest()
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net.train()(x), torch.arange(8) % CLASSES).backward()
        optimizer.step()
    assert net.frozen_digest() == frozen
    after, own = whole_state(parts), parts.tail.module.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved <= own.keys()
    kept = {name for name in own if name.endswith("num_batches_tracked")}
    assert kept <= moved if bn == "train" else not kept & moved
    assert {name for name, value in own.items() if value.dim() > 1} <= moved
    rebuilt = Network(open_parts(recipe, after, tap="penultimate"), CLASSES, preset, bn=bn)
    torch.testing.assert_close(rebuilt.features(x), net.eval().features(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("trunk", [True, False])
def test_a_network_can_be_traced_by_the_compiler(trunk):
    net = network(trunk=trunk)
    net.set_head(np.ones((CLASSES, WIDTH)), np.arange(3.0))
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(compiled(pixels()), net(pixels()), rtol=0, atol=1e-6)
