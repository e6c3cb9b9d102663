"""A network as a graph of operations, traced by torchvision's tracer, whose node names are the layer names."""

import math
from collections.abc import Mapping

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from extract.taps.trunk import CLOSING, DROPOUTS, Cut, Pool, Pooled, Trunk, Visit, is_classifier

CLOSING_CALLS = {"flatten", "view", "reshape", "squeeze", "relu", "softmax", "log_softmax", "dropout", "mean"}


class GraphTrunk(Trunk):
    """A network as a graph of operations, traced in eval mode; its layers are all the nodes."""

    def __init__(self, network: nn.Module) -> None:
        tracer = NodePathTracer(autowrap_modules=(math, torchvision.ops))
        graph = tracer.trace(network.eval())
        self._graph = fx.GraphModule(network, graph)
        names = tracer.node_to_qualname
        self._nodes = {names[node]: node for node in graph.nodes if node.op not in ("placeholder", "output")}
        self.nodes = tuple(self._nodes)
        classifier_input = self._classifier_input()
        self.classifier_input = names[classifier_input] if classifier_input else None

    def _classifier_input(self) -> fx.Node | None:
        """Walk back from the output over what may follow a classifier; then over dropout, which does nothing."""
        node = next(iter(reversed(self._graph.graph.nodes))).args[0]
        while isinstance(node, fx.Node) and self._is(node, CLOSING, CLOSING_CALLS):
            node = node.args[0]
        if not isinstance(node, fx.Node) or not is_classifier(self._module(node)):
            return None
        node = node.args[0]
        while isinstance(node, fx.Node) and self._is(node, DROPOUTS, {"dropout"}):
            node = node.args[0]
        return node if isinstance(node, fx.Node) and node.op != "placeholder" else None

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._graph.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _is(self, node: fx.Node, modules: tuple[type, ...], calls: set[str]) -> bool:
        if node.op == "call_module":
            return isinstance(self._module(node), modules)
        return getattr(node.target, "__name__", node.target) in calls

    def walk(self, size_px: int, visit: Visit) -> None:
        """Run the graph on a tensor without content, node by node."""
        names = {node: name for name, node in self._nodes.items()}
        trunk = self

        class Walker(fx.Interpreter):
            def run_node(self, n: fx.Node) -> object:
                output = super().run_node(n)
                if n in names and isinstance(output, Tensor):
                    visit(names[n], trunk._parameters(n), output)
                return output

        Walker(self._graph).run(_blank(self._graph, size_px))

    def _parameters(self, node: fx.Node) -> list[nn.Parameter]:
        if node.op == "call_module":
            return list(self._graph.get_submodule(str(node.target)).parameters())
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            value = getattr(self._graph.get_submodule(owner), name)
            return [value] if isinstance(value, nn.Parameter) else []
        return []

    def cut(self, taps: Mapping[str, tuple[str, Pool]]) -> Cut:
        """Copy the graph up to the taps, with each pool right behind its node."""
        graph, copies = fx.Graph(), {}
        graph.graph_copy(self._graph.graph, copies)
        graph.output({name: copies[self._nodes[node]] for name, (node, _) in taps.items()})
        module = fx.GraphModule(self._graph, graph)
        graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        end = next(iter(reversed(graph.nodes)))
        rows = {}
        for i, (name, (node, pool)) in enumerate(taps.items()):
            module.add_submodule(f"tap{i}", Pooled(pool))
            with graph.inserting_after(copies[self._nodes[node]]):
                rows[name] = graph.call_module(f"tap{i}", (copies[self._nodes[node]],))
        end.args = (rows,)
        module.recompile()
        return Cut(module, module)


def _blank(module: nn.Module, size_px: int) -> Tensor:
    """Return one image without content, where the weights are."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return torch.zeros(1, 3, size_px, size_px, device=device)
