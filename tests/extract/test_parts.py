"""The parts of a network, against the network itself, run whole by its own code."""

import dataclasses
import math
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from extract.backbones import digest, open_skeleton
from extract.backbones.weights import State
from extract.errors import BackboneError, TapError
from extract.forward import build_extractor
from extract.parts import Parts, fresh_state, open_parts, trunk_digest, tuned_recipe, whole_state
from extract.recipe import PENULTIMATE, Preprocessing, Recipe, Tap
from extract.spec import BackboneSpec, ExtractSpec
from extract.taps import Trunk, open_trunk

FAMILIES = {
    "alexnet": ("features.5", "flatten", "classifier"),
    "convnext_tiny": ("features.5", PENULTIMATE, "classifier.2"),
    "densenet121": ("features.denseblock3", PENULTIMATE, "classifier"),
    "efficientnet_b0": ("features.6", PENULTIMATE, "classifier"),
    "googlenet": ("inception4e", PENULTIMATE, "fc"),
    "inception_v3": ("Mixed_6e", PENULTIMATE, "fc"),
    "mnasnet0_5": ("layers.12", PENULTIMATE, "classifier"),
    "mobilenet_v2": ("features.13", PENULTIMATE, "classifier"),
    "mobilenet_v3_small": ("features.8", PENULTIMATE, "classifier.3"),
    "regnet_x_400mf": ("trunk_output.block3", PENULTIMATE, "fc"),
    "resnet18": ("layer3", PENULTIMATE, "fc"),
    "resnext50_32x4d": ("layer3", PENULTIMATE, "fc"),
    "shufflenet_v2_x0_5": ("stage3", PENULTIMATE, "fc"),
    "squeezenet1_1": ("features.7", PENULTIMATE, "classifier"),
    "vgg11_bn": ("features.14", "flatten", "classifier"),
    "builtin": ("layer2", PENULTIMATE, "fc"),
}
"""Where a network of each family is parted, its tap, and the module that is given what the tap has."""

SIDES = {"inception_v3": 96, "builtin": 32}


@cache
def traced(model: str) -> Trunk:
    return open_trunk(open_skeleton(model))


def recipe_of(model: str, *taps: str) -> Recipe:
    """The recipe of a network at taps, from shallow to deep, without weights."""
    side = SIDES.get(model, 64)
    whole = traced(model)
    chosen = tuple(Tap.parse(tap) for tap in taps or (PENULTIMATE,))
    nodes = tuple(whole.penultimate() if tap.layer == PENULTIMATE else whole.resolve(tap.layer) for tap in chosen)
    preset = Preprocessing(side, side, "bilinear", (0.5,) * 3, (0.5,) * 3)
    return Recipe(model, "0" * 64, chosen, nodes, preset, "plain", "fp32", "float32", views=4, view_flips=False)


def state_of(recipe: Recipe) -> State:
    """Weights up to the deepest tap that neither die out nor explode, quicker than the authors' own."""
    draw = torch.Generator().manual_seed(0)

    def values(name: str, like: Tensor) -> Tensor:
        if not like.is_floating_point():
            return torch.zeros(like.shape, dtype=like.dtype)
        if like.dim() > 1 and not name.endswith("layer_scale"):
            return torch.randn(like.shape, generator=draw) * math.sqrt(2 / like[0].numel())
        if name.endswith(("bias", "running_mean")):
            return 0.1 * torch.randn(like.shape, generator=draw)
        return 0.5 + torch.rand(like.shape, generator=draw)

    cut = traced(recipe.model).cut({"all": (recipe.nodes[-1], torch.clone)})
    return {name: values(name, like) for name, like in cut.module.state_dict().items()}


def images(recipe: Recipe) -> Tensor:
    side = recipe.preprocessing.crop_size
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def received(network: nn.Module, head: str, x: Tensor) -> Tensor:
    """What a module of a network is given, pooled; nothing behind it runs, as it has no weights."""
    caught: list[Tensor] = []

    def catch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught.append(inputs[0])
        raise StopIteration

    network.get_submodule(head).register_forward_pre_hook(catch)
    with pytest.raises(StopIteration):
        network(x)
    [given] = caught
    return given.mean((2, 3)) if given.dim() == 4 else given


def rows(parts: Parts, x: Tensor) -> Tensor:
    return parts.tail.run(x if parts.trunk is None else parts.trunk.run(x)["trunk"])["tail"]


def gradients(module: nn.Module, out: Tensor) -> dict[str, Tensor]:
    goal = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    (out * goal).sum().backward()
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


def filled(model: str, state: State) -> nn.Module:
    """The network by its own code, with these weights, module by module: MNASNet's own loading asks for a version."""
    network = open_skeleton(model).requires_grad_(True)
    by_module: dict[str, State] = {}
    for name, value in state.items():
        path, _, last = name.rpartition(".")
        by_module.setdefault(path, {})[last] = value
    for path, values in by_module.items():
        network.get_submodule(path).load_state_dict(values, strict=False, assign=True)
    return network


@dataclass
class Family:
    """A network of a family: its recipe, where it is parted, its weights, and its parts; `head` gets the rows."""

    recipe: Recipe
    until: str
    tap: str
    head: str
    state: State
    parts: Parts


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    until, tap, head = FAMILIES[request.param]
    recipe = recipe_of(request.param, tap)
    state = state_of(recipe)
    return Family(recipe, until, tap, head, state, open_parts(recipe, state, tap=tap, until=until))


def test_the_parts_together_are_the_network_and_so_are_their_gradients(family):
    network, x = filled(family.recipe.model, family.state), images(family.recipe)
    expected, found = received(network, family.head, x), rows(family.parts, x)
    assert found.shape == (2, family.parts.width)
    assert expected.std() > 1e-3, "weights of which nothing is left would tell nothing"
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    of_tail, of_all = gradients(family.parts.tail.module, found), gradients(network, expected)
    assert of_tail.keys() == dict(family.parts.tail.module.named_parameters()).keys()
    for name, value in of_tail.items():
        torch.testing.assert_close(value, of_all[name], rtol=1e-5, atol=1e-5 * float(of_all[name].abs().max()))


def test_nothing_is_lost_between_the_parts_and_nothing_is_in_both(family):
    assert family.parts.trunk
    below, above = family.parts.trunk.module.state_dict(), family.parts.tail.module.state_dict()
    assert not below.keys() & above.keys()
    assert digest(whole_state(family.parts)) == digest(family.state)
    assert trunk_digest(family.recipe, family.state, family.until) == digest(dict(below))


def test_every_weight_of_the_tail_is_in_one_block(family):
    weights = dict(family.parts.tail.module.named_parameters())
    assert [name for block in family.parts.blocks for name in block] == list(weights)
    assert all(any(weights[name].dim() > 1 for name in block) for block in family.parts.blocks)


def test_without_a_layer_to_part_at_all_is_tail():
    recipe = recipe_of("builtin")
    state, x = state_of(recipe), images(recipe)
    whole = open_parts(recipe, state, tap=PENULTIMATE)
    assert (whole.trunk, whole.node) == (None, None)
    assert digest(whole_state(whole)) == digest(state)
    assert rows(whole, x).equal(rows(open_parts(recipe, state, tap=PENULTIMATE, until="layer2"), x))


def blocks_of(model: str, until: str | None = None, tap: str = PENULTIMATE) -> list[set[str]]:
    recipe = recipe_of(model, tap)
    return [
        {name.rpartition(".")[0] for name in block}
        for block in open_parts(recipe, state_of(recipe), tap=tap, until=until).blocks
    ]


def test_blocks_are_those_of_the_authors_and_batchnorm_goes_with_what_it_follows():
    found = blocks_of("resnet18")
    assert found[0] == {"conv1", "bn1"}
    assert [{name.split(".")[0] for name in block} for block in found[1:]] == [{f"layer{i}"} for i in range(1, 5)]
    assert blocks_of("vgg11_bn", "features.14", "flatten") == [
        {f"features.{i}", f"features.{i + 1}"} for i in (15, 18, 22, 25)
    ]
    assert blocks_of("resnet18", "layer4.0") == [{f"layer4.1.{name}" for name in ("conv1", "bn1", "conv2", "bn2")}]


def test_behind_the_last_map_a_layer_is_a_block():
    assert blocks_of("mobilenet_v3_small", "features.12") == [{"classifier.0"}]


def test_the_trunk_is_frozen_and_the_tail_is_not():
    recipe = recipe_of("builtin")
    parts = open_parts(recipe, state_of(recipe), tap=PENULTIMATE, until="layer2")
    assert parts.trunk
    assert not any(module.training for cut in (parts.trunk, parts.tail) for module in cut.module.modules())
    assert not any(weight.requires_grad for weight in parts.trunk.module.parameters())
    assert all(weight.requires_grad for weight in parts.tail.module.parameters())
    assert not rows(parts, images(recipe)).isnan().any()


def test_training_reaches_neither_the_weights_that_were_given_nor_those_that_were_taken():
    recipe = recipe_of("builtin")
    state = state_of(recipe)
    before = digest(state)
    parts = open_parts(recipe, state, tap=PENULTIMATE, until="layer2")
    taken = whole_state(parts)
    parts.tail.module.train()
    rows(parts, images(recipe)).sum().backward()
    with torch.no_grad():
        for weight in parts.tail.module.parameters():
            weight -= 0.1 * weight.grad
    assert digest(state) == digest(taken) == before != digest(whole_state(parts))
    below, above = (digest(dict(cut.module.state_dict())) for cut in (parts.trunk, parts.tail) if cut)
    assert below == trunk_digest(recipe, state, "layer2")
    assert above != digest({name: state[name] for name in parts.tail.module.state_dict()})


def test_weights_taken_are_contiguous_whatever_trains():
    recipe = recipe_of("builtin")
    parts = open_parts(recipe, state_of(recipe), tap=PENULTIMATE, until="layer1")
    parts.tail.module.to(memory_format=torch.channels_last)
    assert all(value.is_contiguous() and not value.requires_grad for value in whole_state(parts).values())


@pytest.mark.parametrize("model", ["convnext_tiny", "efficientnet_b0"])
def test_stochastic_depth_is_off_in_training_mode(model):
    """It is code and no layer: the trace, in eval mode, is without it."""
    recipe = recipe_of(model)
    parts = open_parts(recipe, state_of(recipe), tap=PENULTIMATE, until=FAMILIES[model][0])
    maps = parts.trunk.run(images(recipe))["trunk"]
    for module in parts.tail.module.modules():
        module.train(not isinstance(module, nn.BatchNorm2d))
    once, again = (parts.tail.run(maps)["tail"] for _ in range(2))
    assert once.equal(again)


def test_dropout_that_is_a_layer_drops_in_training_mode():
    recipe = recipe_of("alexnet", "classifier.2")
    state = {name: value.expand_as(value) for name, value in state_of(recipe).items()}
    parts = open_parts(recipe, state, tap="classifier.2", until="features.12")
    maps = parts.trunk.run(images(recipe))["trunk"]
    assert parts.tail.run(maps)["tail"].equal(parts.tail.run(maps)["tail"])
    parts.tail.module.train()
    assert not parts.tail.run(maps)["tail"].equal(parts.tail.run(maps)["tail"])


def test_of_several_taps_one_is_taken_and_weights_beyond_it_are_left():
    recipe = recipe_of("builtin", "layer1:max", "layer2:map", "layer2", "penultimate")
    state = state_of(recipe)
    for tap, width in (("layer2", 64), ("penultimate", 128)):
        assert open_parts(recipe, state, tap=tap, until="layer1").width == width
    parts = open_parts(recipe, state, tap="layer2", until="layer1")
    assert not [name for name in whole_state(parts) if name.startswith("layer3")]
    with pytest.raises(TapError, match=r"no pooled tap of the recipe 'layer2:map'.*Known: layer1:max, layer2, "):
        open_parts(recipe, state, tap="layer2:map")


def test_where_a_network_cannot_be_parted_it_is_said():
    recipe = recipe_of("builtin")
    state = state_of(recipe)
    for until, said in {
        "penultimate": "no layer 'penultimate'",
        "layer5": r"no layer 'layer5' \(nearest: 'layer\d'\)",
        "layer3": "nothing above 'layer3' has weights to train. Take a lower layer",
        "flatten": "nothing is between 'flatten' and 'flatten', where the network ends. Take a lower layer",
        "layer3.0.bn1": r"cannot be parted at 'layer3.0.bn1'.*Take layer2 or layer3.0",
    }.items():
        with pytest.raises(TapError, match=said):
            open_parts(recipe, state, tap=PENULTIMATE, until=until)


def test_the_output_that_a_network_is_parted_at_is_a_map():
    recipe = recipe_of("builtin", "fc")
    with pytest.raises(TapError, match=r"pool 'map' does not take an output of shape \(128,\)"):
        open_parts(recipe, state_of(recipe), tap="fc", until="flatten")


def test_weights_that_do_not_fit_are_told_apart():
    recipe = recipe_of("builtin")
    state = state_of(recipe)
    del state["layer3.0.conv1.weight"]
    with pytest.raises(BackboneError, match=r"1 missing \(layer3.0.conv1.weight\)"):
        open_parts(recipe, state, tap=PENULTIMATE, until="layer2")


def test_fresh_weights_are_those_of_an_extraction_without_weights():
    spec = ExtractSpec(
        "", backbone=BackboneSpec("builtin", "none", seed=3), taps=("layer1", "penultimate"), device="cpu"
    )
    recipe = build_extractor(spec).recipe
    assert digest(fresh_state(recipe, tap="penultimate", seed=3)) == recipe.weights_sha256
    assert digest(fresh_state(recipe, tap="penultimate", seed=4)) != recipe.weights_sha256
    maps = build_extractor(dataclasses.replace(spec, taps=("layer2:map",))).recipe
    assert trunk_digest(recipe, fresh_state(recipe, tap="penultimate", seed=3), "layer2") == maps.weights_sha256
    assert not [name for name in fresh_state(recipe, tap="layer1", seed=3) if name.startswith(("layer2", "fc"))]


def test_the_tuned_recipe_is_what_an_extraction_with_these_weights_has(tmp_path):
    from safetensors.torch import save_file

    recipe = recipe_of("builtin", "layer2", "penultimate")
    state = state_of(recipe)
    parts = open_parts(recipe, state, tap="layer2", until="layer1")
    save_file(whole_state(parts), tmp_path / "tuned.safetensors")
    tuned = tuned_recipe(recipe, whole_state(parts), tap="layer2")
    spec = ExtractSpec(
        "", backbone=BackboneSpec("builtin", str(tmp_path / "tuned.safetensors")), taps=("layer2",), device="cpu"
    )
    found = build_extractor(spec).recipe
    assert tuned.weights_sha256 == found.weights_sha256
    same = {"model": recipe.model, "preprocessing": recipe.preprocessing, "decoder": recipe.decoder}
    assert tuned == dataclasses.replace(found, **same)
