"""BatchNorm folded into the convolution before it: the same function in fewer operations."""

from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold(module: fx.GraphModule) -> None:
    """Fold each BatchNorm that alone reads the convolution before it, in place; the module is in eval mode.

    Do it before any cast: a folded weight is rounded once.
    """
    calls = Counter(node.target for node in module.graph.nodes if node.op == "call_module")
    for node in list(module.graph.nodes):
        norm = called(module, node)
        before = node.args[0] if node.args else None
        if type(norm) is nn.BatchNorm2d and norm.track_running_stats and isinstance(before, fx.Node):
            convolution = called(module, before)
            alone = len(before.users) == 1 and calls[before.target] == calls[node.target] == 1
            if type(convolution) is nn.Conv2d and alone:
                module.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
                node.replace_all_uses_with(before)
                module.graph.erase_node(node)
    module.delete_all_unused_submodules()
    module.recompile()


def called(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls; None where it calls none."""
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None
