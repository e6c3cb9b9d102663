"""A network in two parts: a trunk, which stays as it is, and a tail above it, which can be trained.

Both come from a trace in eval mode. What a network does in training by code, and not by a layer of its own, is not in
it: dropout called as a function (DenseNet's), stochastic depth (ConvNeXt, EfficientNet), auxiliary heads (GoogLeNet,
Inception). Layers (`nn.Dropout`, BatchNorm) do in training mode what they always do.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from extract.backbones import digest, fit_state, open_backbone, open_skeleton
from extract.backbones.weights import State
from extract.errors import TapError, unknown
from extract.pooling import Pool, make_pool
from extract.recipe import MAP_POOL, Preprocessing, Recipe, Tap
from extract.spec import BackboneSpec
from extract.taps import Cut, Trunk, open_trunk

TRUNK, TAIL = "trunk", "tail"
"""What the parts call what they return."""

BLOCKS_AT_PX = 224
"""Side of the image that tells blocks apart: one size for all, as small maps no longer say where resolution falls."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A network that is parted at the output of `node`, or all tail where that is None.

    `trunk.run` takes normalised images (N, 3, S, S) float32 and returns `{"trunk": maps}`, (N, C, H, W) float32;
    `tail.run` takes such maps, or images where there is no trunk, and returns `{"tail": rows}`, (N, `width`) float32.
    `blocks` are the names of the tail's parameters, as its module has them, by block, from shallow to deep.
    """

    trunk: Cut | None
    tail: Cut
    node: str | None
    width: int
    blocks: tuple[tuple[str, ...], ...]


def open_parts(recipe: Recipe, state: State, *, tap: str, until: str | None = None) -> Parts:
    """Return the network of a recipe up to one of its taps, by name, parted at the end of the layer `until`.

    In fp32 and eval mode, on the CPU; the trunk without gradients, the tail with them and with weights of its own.
    Raises TapError where it cannot be parted there, or nothing above could train; BackboneError where the weights do
    not fit.
    """
    network = open_skeleton(recipe.model)
    whole = open_trunk(network)
    node = None if until is None else whole.resolve(until)
    trunk = None if node is None else _trunk(whole, node)
    tail = _whole(whole, recipe, tap) if node is None else whole.between(node, _taps(recipe, tap))
    width = _width(trunk, tail, recipe.preprocessing)
    blocks = _blocks(whole, tail.module)
    if not blocks:
        raise TapError(f"nothing above {until!r} has weights to train", where=recipe.model, remedy="Take a lower layer")
    for part in filter(None, (trunk, tail)):
        needed = fit_state(network, part.module.state_dict(), state, where=recipe.model)
        _load(part.module, needed, trains=part is tail)
    return Parts(trunk, tail, node, width, blocks)


def whole_state(parts: Parts) -> State:
    """Return the weights of both parts under their names in the whole network: copies, contiguous and on the CPU."""
    modules = [part.module for part in (parts.trunk, parts.tail) if part]
    weights = {name: value for module in modules for name, value in module.state_dict().items()}
    return {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}


def fresh_state(recipe: Recipe, *, tap: str, seed: int) -> State:
    """Return the weights up to a tap as the network's authors initialise them, drawn by the seed."""
    backbone = open_backbone(BackboneSpec(recipe.model, "none", seed))
    needed = _whole(open_trunk(backbone.network), recipe, tap).module.state_dict()
    return fit_state(backbone.network, needed, backbone.read(), where=recipe.model)


def tuned_recipe(recipe: Recipe, state: State, *, tap: str) -> Recipe:
    """Return the recipe of one tap in the centre view, with the weights of `whole_state`; all else is as it was."""
    chosen, node = _chosen(recipe, tap)
    weights = digest(state)
    one = replace(recipe, taps=(chosen,), nodes=(node,), weights_sha256=weights)
    return replace(one, views=1, view_seed=0, view_flips=True)


def trunk_digest(recipe: Recipe, state: State, until: str) -> str:
    """Return what a recipe of the maps at the end of the layer `until` has for `weights_sha256`, of such weights."""
    network = open_skeleton(recipe.model)
    whole = open_trunk(network)
    needed = _trunk(whole, whole.resolve(until)).module.state_dict()
    return digest(fit_state(network, needed, state, where=recipe.model))


def _trunk(whole: Trunk, node: str) -> Cut:
    return whole.cut({TRUNK: (node, make_pool(MAP_POOL))})


def _whole(whole: Trunk, recipe: Recipe, tap: str) -> Cut:
    return whole.cut(_taps(recipe, tap))


def _taps(recipe: Recipe, tap: str) -> dict[str, tuple[str, Pool]]:
    chosen, node = _chosen(recipe, tap)
    return {TAIL: (node, make_pool(chosen.pool))}


def _chosen(recipe: Recipe, name: str) -> tuple[Tap, str]:
    """Return a tap of the recipe and its node; raises TapError for one that is not there, or that is a map."""
    pairs = zip(recipe.taps, recipe.nodes, strict=True)
    pooled = {tap.name: (tap, node) for tap, node in pairs if not tap.is_map}
    if name not in pooled:
        unknown("pooled tap of the recipe", name, pooled, TapError)
    return pooled[name]


def _width(trunk: Cut | None, tail: Cut, preset: Preprocessing) -> int:
    """Return the length of a row, from a run without content."""
    images = torch.zeros(1, 3, preset.crop_size, preset.crop_size, device="meta")
    with torch.no_grad():
        return tail.run(images if trunk is None else trunk.run(images)[TRUNK])[TAIL].shape[1]


def _blocks(whole: Trunk, tail: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Group the names of the parameters by block, or by layer behind the last map, from shallow to deep.

    A block without a weight of two dimensions or more (BatchNorm's, say) belongs to the layer that it follows.
    """
    known = [name for name, _ in whole.blocks(whole.profile(BLOCKS_AT_PX), BLOCKS_AT_PX)]
    groups: dict[str, list[str]] = {}
    weighs: dict[str, bool] = {}
    for name, parameter in tail.named_parameters():
        block = next((block for block in known if name.startswith(f"{block}.")), name.rpartition(".")[0])
        groups.setdefault(block, []).append(name)
        weighs[block] = weighs.get(block, False) or parameter.dim() > 1
    blocks: list[tuple[str, ...]] = []
    for block, names in groups.items():
        before = () if weighs[block] or not blocks else blocks.pop()
        blocks.append((*before, *names))
    return tuple(blocks)


def _load(module: nn.Module, state: State, *, trains: bool) -> None:
    """Give a module its weights, copied where it trains: training must not reach whoever gave them."""
    state = {name: value.clone() for name, value in state.items()} if trains else state
    module.load_state_dict(state, strict=True, assign=True)
    module.eval().requires_grad_(trains)
