"""The ways to train a network: with which weights and which head each begins, and what of the network stays."""

from dataclasses import dataclass

from classify.tuning import TuneSpec
from extract.backbones import open_skeleton
from extract.errors import TapError
from extract.recipe import PENULTIMATE, Recipe
from extract.taps import open_trunk
from extract.taps.trunk import stage_ends


@dataclass(frozen=True)
class Strategy:
    """How a training begins: `fresh` random weights or those of the features, the `probe`'s head or one of zeros.

    With `cached`, the maps that the kept part of the network makes of the images are cached once, and trained on.
    """

    fresh: bool = False
    probe: bool = True
    cached: bool = False


STRATEGIES = {
    "tail": Strategy(cached=True),
    "lp-ft": Strategy(),
    "full": Strategy(probe=False),
    "scratch": Strategy(fresh=True, probe=False),
}


def trained_tap(recipe: Recipe, layers: tuple[str, ...]) -> str:
    """Choose the tap that the head stands on: the penultimate layer where it is among `layers`, else the deepest."""
    taps = [tap for tap in recipe.taps if tap.name in layers]
    return next((tap.name for tap in taps if tap.layer == PENULTIMATE), taps[-1].name)


def kept_until(strategy: Strategy, tune: TuneSpec, recipe: Recipe, tap: str) -> str | None:
    """Name the layer up to which the network stays as it is; None where all of it trains."""
    return (tune.cut or last_stage_but_one(recipe, tap)) if strategy.cached else tune.freeze_until


def last_stage_but_one(recipe: Recipe, tap: str) -> str:
    """Name the deepest of the stages below a tap: layer3 of a ResNet. Raises TapError where there is none."""
    before = stages_below(recipe, tap)
    if not before:
        raise TapError(f"{recipe.model} has no stage below {tap!r}", remedy="Name a layer with --cut")
    return before[-1]


def stages_below(recipe: Recipe, tap: str) -> list[str]:
    """Name the ends of the stages that have parameters between themselves and a tap, from shallow to deep."""
    trunk, side = open_trunk(open_skeleton(recipe.model)), recipe.preprocessing.crop_size
    nodes = trunk.profile(side)
    profile = {node.name: node for node in nodes}
    [end] = [node for known, node in zip(recipe.taps, recipe.nodes, strict=True) if known.name == tap]
    return [
        name
        for name in stage_ends(trunk.blocks(nodes, side))
        if profile[trunk.resolve(name)].parameters < profile[end].parameters
    ]
