"""Convolutions and linear layers by oneDNN, and the activation behind them while their output is still in the cache.

PyTorch itself gives linear layers in fp32 to MKL, which on AMD reaches less than half of what the processor does.
"""

import platform

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from extract.runners.folding import called

PostOp = tuple[str, list[float], str]
"""What oneDNN calls an activation, its numbers, and its variant."""

NOTHING: PostOp = ("none", [], "")
MODULES: dict[type, PostOp] = {
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: ("swish", [], ""),
    nn.Hardswish: ("hardswish", [], ""),
}
FUNCTIONS: dict[object, PostOp] = {F.relu: MODULES[nn.ReLU], torch.relu: MODULES[nn.ReLU]}
"""By exact type of module, and by function."""

X86 = ("x86_64", "amd64")


def fuses() -> bool:
    """Tell whether this machine's CPU takes it. Elsewhere than on x86 nobody has tried."""
    return platform.machine().lower() in X86 and torch.backends.mkldnn.is_available()


def fuse(module: fx.GraphModule) -> None:
    """Replace the layers, each with the activation that comes next and alone reads it, in place."""
    for node in list(module.graph.nodes):
        layer = called(module, node)
        if (kind := LAYERS.get(type(layer))) is None or _pads_otherwise(layer):
            continue
        post_op = _post_op(module, node.next) if list(node.users) == [node.next] else NOTHING
        if post_op is not NOTHING:
            node.next.replace_all_uses_with(node)
            module.graph.erase_node(node.next)
        node.target = f"{node.target}_{post_op[0]}"
        module.add_submodule(node.target, kind(layer, post_op))
    module.delete_all_unused_submodules()
    module.recompile()


def _pads_otherwise(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str))


def _post_op(module: fx.GraphModule, node: fx.Node) -> PostOp:
    found = called(module, node)
    if type(found) is nn.GELU:
        return "gelu", [], found.approximate
    return FUNCTIONS.get(node.target, NOTHING) if found is None else MODULES.get(type(found), NOTHING)


class Convolution(nn.Module):
    """A convolution with its activation: (N, C, H, W) -> (N, C', H', W')."""

    def __init__(self, layer: nn.Conv2d, post_op: PostOp) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self._how = layer.padding, layer.stride, layer.dilation, layer.groups, *post_op

    def forward(self, images: Tensor) -> Tensor:
        """Compute in the type of the weights."""
        return torch.ops.mkldnn._convolution_pointwise(images, self.weight, self.bias, *self._how)


class Linear(nn.Module):
    """A linear layer with its activation: (..., D) -> (..., D')."""

    def __init__(self, layer: nn.Linear, post_op: PostOp) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self._post_op = post_op

    def forward(self, rows: Tensor) -> Tensor:
        """Compute in the type of the weights."""
        return torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, *self._post_op)


LAYERS: dict[type, type] = {nn.Conv2d: Convolution, nn.Linear: Linear}
"""By exact type: a subclass may compute something else."""
