"""What a network that can be cut is: its layers in order, what each costs, and where its stages end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from extract.errors import TapError, unknown

Pool = Callable[[Tensor], Tensor]
Visit = Callable[[str, list[nn.Parameter], Tensor], None]

SHRINKS = 0.75
"""A stage ends where the side of the map falls to this share or less: unpadded convolutions only trim it."""

DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.Identity)
CLOSING = (*DROPOUTS, nn.ReLU, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Softmax, nn.LogSoftmax)


@dataclass(frozen=True, slots=True)
class Node:
    """What is known of one layer: the shape of its output for one image, and what all up to it costs.

    `parameters` and `flops` are cumulative; a multiply-add counts as two operations.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A network that ends at its deepest tap.

    `module` holds the weights that are left, under their names in the whole network; `run` takes images (N, 3, H, W)
    and returns the rows (N, D) of each tap, or (N, C, H, W) where it is kept as a map.
    """

    module: nn.Module
    run: Callable[[Tensor], dict[str, Tensor]]


class Trunk:
    """A network in eval mode and the layers it can be cut at, in order of execution."""

    nodes: tuple[str, ...]
    classifier_input: str | None

    def resolve(self, layer: str) -> str:
        """Return the node that `layer` means: itself, or the last one inside the module of that name."""
        if layer in self.nodes:
            return layer
        inside = [name for name in self.nodes if name.startswith(layer + ".")]
        if not inside:
            modules = {name.rsplit(".", depth)[0] for name in self.nodes for depth in range(name.count(".") + 1)}
            unknown("layer", layer, sorted(modules), TapError, remedy="List them with: pipeline.py layers MODEL")
        return inside[-1]

    def penultimate(self) -> str:
        """Return the node that feeds the classifier in eval mode; raises TapError for a network that has none."""
        if self.classifier_input is None:
            raise TapError("the network does not end in a linear or 1x1 classifier", remedy="Name a layer instead")
        return self.classifier_input

    def profile(self, size_px: int) -> list[Node]:
        """Run one square image of no content and return every layer whose output is one tensor, with shape and cost."""
        nodes: list[Node] = []
        seen: set[int] = set()
        parameters = 0

        def visit(name: str, used: list[nn.Parameter], output: Tensor) -> None:
            nonlocal parameters
            parameters += sum(p.numel() for p in used if id(p) not in seen)
            seen.update(id(p) for p in used)
            nodes.append(Node(name, tuple(output.shape[1:]), parameters, counter.get_total_flops()))

        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.walk(size_px, visit)
        return nodes

    def blocks(self, profile: Sequence[Node], size_px: int) -> list[tuple[str, int]]:
        """Return the blocks up to the classifier, from a profile at `size_px`: (name, side of the map they leave)."""
        end = self.nodes.index(self.classifier_input) + 1 if self.classifier_input else len(self.nodes)
        before = set(self.nodes[:end])
        maps = [
            (node.name, node.shape[1])
            for node in profile
            if node.name in before and node.parameters and _is_map(node.shape)
        ]
        return _blocks(maps, depth=0, size_px=size_px)

    def stages(self, size_px: int) -> list[str]:
        """Return the end of every stage: the last block before each change of resolution, up to the classifier."""
        return stage_ends(self.blocks(self.profile(size_px), size_px))

    def walk(self, size_px: int, visit: Visit) -> None:
        """Run one image and call `visit` with each node's name, parameters of its own, and output."""
        raise NotImplementedError

    def cut(self, taps: Mapping[str, tuple[str, Pool]]) -> Cut:
        """Return the network up to the deepest of `taps`: name -> (node, pool)."""
        raise NotImplementedError

    def between(self, start: str, taps: Mapping[str, tuple[str, Pool]]) -> Cut:
        """Return the network from the output of the node `start` to `taps`; it takes maps (N, C, H, W) of that output.

        Its modules are copies of the network's, and what it is given it leaves as it is. Raises TapError where `taps`
        need anything else that comes before `start`, or do not need `start`.
        """
        raise NotImplementedError


def stage_ends(blocks: Sequence[tuple[str, int]]) -> list[str]:
    """Return the last block at each resolution."""
    following = [side for _, side in blocks[1:]] + [0]
    return [name for (name, side), after in zip(blocks, following, strict=True) if after <= SHRINKS * side]


def _is_map(shape: tuple[int, ...]) -> bool:
    """Tell whether a square image left a map (C, H, W) of more than one position; (H, W, C) is none."""
    return len(shape) == 3 and shape[1] == shape[2] > 1


def _blocks(maps: Sequence[tuple[str, int]], *, depth: int, size_px: int) -> list[tuple[str, int]]:
    """Group nodes into the largest modules in which the resolution changes at most once: (name, last side)."""
    blocks: list[tuple[str, int]] = []
    start = 0
    while start < len(maps):
        path = maps[start][0].split(".")[: depth + 1]
        stop = next((i for i in range(start, len(maps)) if maps[i][0].split(".")[: depth + 1] != path), len(maps))
        group = maps[start:stop]
        if len({side for _, side in group} - {size_px}) <= 1:
            blocks.append((".".join(path), group[-1][1]))
        else:
            blocks += _blocks(group, depth=depth + 1, size_px=size_px)
        start, size_px = stop, group[-1][1]
    return blocks


def is_classifier(module: nn.Module | None) -> bool:
    """Tell whether a module can be the last of a classifier: linear, or a 1x1 convolution."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1)
    return isinstance(module, nn.Linear)


class Pooled(nn.Module):
    """A pool as a module; it works in float32 whatever the network computes in."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, output: Tensor) -> Tensor:
        """The output of a layer -> rows (N, D), or (N, C, H, W) of the pool `map`."""
        if not isinstance(output, Tensor):
            raise TapError("the output is no tensor", remedy="Tap another layer")
        if output.dim() == 4 and output.shape[2] != output.shape[3]:
            raise TapError(
                f"the output of shape {tuple(output.shape[1:])} is no map (C, H, W)", remedy="Tap the end of the block"
            )
        return self.pool(output.float())
