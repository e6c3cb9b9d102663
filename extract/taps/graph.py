"""A network as a graph of operations, traced by torchvision's tracer, whose node names are the layer names."""

import copy
import math
from collections.abc import Iterable, Mapping

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from extract.errors import TapError
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
        self._pool(module, copies, taps)
        return Cut(module, module)

    def between(self, start: str, taps: Mapping[str, tuple[str, Pool]]) -> Cut:
        """Copy what lies between the start and the taps, with each pool right behind its node."""
        first, ends = self._nodes[start], [self._nodes[node] for node, _ in taps.values()]
        if first not in _needed(ends) or first in ends:
            above = " and ".join(repr(node) for node, _ in taps.values())
            said = f"nothing is between {start!r} and {above}, where the network ends"
            raise TapError(said, remedy="Take a lower layer to keep it up to, or a --layer further up")
        if not self._parts_at(first, ends):
            said = f"the network cannot be parted at {start!r}: what comes before is needed behind it, too"
            raise TapError(said, remedy=f"Take {' or '.join(self._where_else(start, ends)) or 'another layer'}")
        graph, needed = fx.Graph(), _needed(ends, but=first)
        # A copy, as what comes first may work in place, and whoever gives maps may need them again.
        copies = {first: graph.call_method("clone", (graph.placeholder("maps"),))}
        for node in self._graph.graph.nodes:
            if node in needed:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output({name: copies[self._nodes[node]] for name, (node, _) in taps.items()})
        module = fx.GraphModule(self._graph, graph)
        self._pool(module, copies, taps)
        module = copy.deepcopy(module)
        return Cut(module, module)

    def _pool(
        self, module: fx.GraphModule, copies: Mapping[fx.Node, fx.Node], taps: Mapping[str, tuple[str, Pool]]
    ) -> None:
        """Put each pool right behind the copy of its node, and the pools' rows into the output."""
        graph, rows = module.graph, {}
        for i, (name, (node, pool)) in enumerate(taps.items()):
            module.add_submodule(f"tap{i}", Pooled(pool))
            with graph.inserting_after(copies[self._nodes[node]]):
                rows[name] = graph.call_module(f"tap{i}", (copies[self._nodes[node]],))
        next(iter(reversed(graph.nodes))).args = (rows,)
        module.recompile()

    def _parts_at(self, first: fx.Node, ends: Iterable[fx.Node]) -> bool:
        """Tell whether the ends need the node, and of what comes before neither a value nor weights."""
        behind = _needed(ends, but=first)
        if not any(first in node.all_input_nodes for node in behind):
            return False
        if any(node.op == "placeholder" for node in behind):
            return False
        return not self._weights(behind) & self._weights(_needed([first]))

    def _weights(self, nodes: Iterable[fx.Node]) -> set[int]:
        modules = (module for node in nodes if (module := self._module(node)))
        buffers = {id(buffer) for module in modules for buffer in module.buffers()}
        return buffers | {id(parameter) for node in nodes for parameter in self._parameters(node)}

    def _where_else(self, start: str, ends: Iterable[fx.Node]) -> list[str]:
        """Name the nearest modules before and behind a node at whose ends the network can be parted."""
        last = {}
        for name, node in self._nodes.items():
            for depth in range(name.count("."), 0 if node.op != "call_module" else -1, -1):
                last[name.rsplit(".", depth)[0]] = name
        modules = {name: module for module, name in reversed(last.items())}
        place = self.nodes.index(start)
        near = (reversed(self.nodes[:place]), self.nodes[place + 1 :])
        able = (
            (modules[name] for name in names if name in modules and self._parts_at(self._nodes[name], ends))
            for names in near
        )
        return [module for found in able if (module := next(found, None))]


def _needed(ends: Iterable[fx.Node], *, but: fx.Node | None = None) -> set[fx.Node]:
    """Return the nodes that the ends need, themselves included, without `but` and what only that needs."""
    found: set[fx.Node] = set()
    todo = list(ends)
    while todo:
        node = todo.pop()
        if node is not but and node not in found:
            found.add(node)
            todo += node.all_input_nodes
    return found


def _blank(module: nn.Module, size_px: int) -> Tensor:
    """Return one image without content, where the weights are."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return torch.zeros(1, 3, size_px, size_px, device=device)
