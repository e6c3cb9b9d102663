"""Taps: cutting a network at named layers, so that one pass computes what they need and nothing more.

A network is traced by torchvision's tracer, whose node names are the layer names; one that cannot be traced is watched
through hooks instead, its layers being its modules. Either way the pool of a tap runs at the very moment the layer's
output exists: an in-place activation or sum that comes later cannot change a row, and the map is freed early.
"""

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import NodePathTracer

from extract.errors import TapError, unknown

log = logging.getLogger(__name__)

Pool = Callable[[Tensor], Tensor]
Visit = Callable[[str, list[nn.Parameter], Tensor], None]

INPUT_OF = "/input"
"""Suffix of the node that is what a module received: the penultimate one of a network watched through hooks."""

SHRINKS = 0.75
"""A stage ends where the side of the map falls to this share or less: unpadded convolutions only trim it."""

DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.Identity)
CLOSING = (*DROPOUTS, nn.ReLU, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Softmax, nn.LogSoftmax)
CLOSING_CALLS = {"flatten", "view", "reshape", "squeeze", "relu", "softmax", "log_softmax", "dropout", "mean"}


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
    and returns the rows (N, D) of each tap.
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


def stage_ends(blocks: Sequence[tuple[str, int]]) -> list[str]:
    """Return the last block at each resolution."""
    following = [side for _, side in blocks[1:]] + [0]
    return [name for (name, side), after in zip(blocks, following, strict=True) if after <= SHRINKS * side]


def open_trunk(network: nn.Module) -> Trunk:
    """Trace the network, or watch it through hooks where it cannot be traced."""
    try:
        return GraphTrunk(network)
    except Exception as error:  # tracing runs the network's own code on stand-ins: it can fail in any way
        log.info("not traceable (%s): its modules are watched through hooks", error)
        return HookTrunk(network)


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
        if not isinstance(node, fx.Node) or not _is_classifier(self._module(node)):
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
            module.add_submodule(f"tap{i}", _Pooled(pool))
            with graph.inserting_after(copies[self._nodes[node]]):
                rows[name] = graph.call_module(f"tap{i}", (copies[self._nodes[node]],))
        end.args = (rows,)
        module.recompile()
        return Cut(module, module)


class _Pooled(nn.Module):
    """A pool as a module; it works in float32 whatever the network computes in."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, output: Tensor) -> Tensor:
        if output.dim() == 4 and output.shape[2] != output.shape[3]:
            raise TapError(
                f"the output of shape {tuple(output.shape[1:])} is no map (C, H, W)", remedy="Tap the end of the block"
            )
        return self.pool(output.float())


class HookTrunk(Trunk):
    """A network watched from outside; its layers are its modules, the k-th call of one carrying the suffix `_k`."""

    def __init__(self, network: nn.Module, size_px: int = 224) -> None:
        self._network = network.eval()
        names: list[str] = []
        self._uses: dict[str, str] = {}
        last: tuple[str, nn.Module] | None = None

        def visit(name: str, used: list[nn.Parameter], output: Tensor) -> None:
            nonlocal last
            names.append(name)
            module = self._network.get_submodule(self._uses[name])
            if not any(module.children()) and not isinstance(module, CLOSING):
                last = name, module

        self.walk(size_px, visit)
        self.classifier_input = None
        if last and _is_classifier(last[1]):
            self.classifier_input = last[0] + INPUT_OF
            place = names.index(last[0])
            while place and isinstance(self._network.get_submodule(self._uses[names[place - 1]]), DROPOUTS):
                place -= 1
            names.insert(place, self.classifier_input)
            self._uses[self.classifier_input] = self._uses[last[0]]
        self.nodes = tuple(names)

    def walk(self, size_px: int, visit: Visit) -> None:
        """Run a copy with weights of zero, since the network's own may have no content yet."""
        network = copy.deepcopy(self._network).to_empty(device="cpu")
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor.zero_()

        def seen(name: str, module: nn.Module, output: object) -> None:
            if isinstance(output, Tensor):
                visit(name, list(module.parameters()), output)

        with torch.no_grad():
            self._watch(network, torch.zeros(1, 3, size_px, size_px), seen)

    def _watch(self, network: nn.Module, images: Tensor, seen: Callable[[str, nn.Module, object], None]) -> None:
        """Run `network` on `images`; call `seen` with the name of each call of a module, the module and its output."""
        calls: dict[str, int] = {}

        def hook(path: str) -> Callable[[nn.Module, object, object], None]:
            def after(module: nn.Module, _: object, output: object) -> None:
                calls[path] = calls.get(path, -1) + 1
                name = f"{path}_{calls[path]}" if calls[path] else path
                self._uses[name] = path
                seen(name, module, output)

            return after

        handles = [module.register_forward_hook(hook(path)) for path, module in network.named_modules() if path]
        try:
            network(images)
        finally:
            for handle in handles:
                handle.remove()

    def cut(self, taps: Mapping[str, tuple[str, Pool]]) -> Cut:
        """Copy the network without the modules that run after the deepest tap, and stop there."""
        deepest = max(self.nodes.index(node) for node, _ in taps.values())
        used = {self._uses[name] for name in self.nodes[: deepest + 1]}
        network = copy.deepcopy(self._network)
        for path, module in list(network.named_modules()):
            if path and not any(module.children()) and path not in used:
                network.set_submodule(path, nn.Identity())
        return Cut(network, lambda images: self._run(network, images, taps))

    def _run(self, network: nn.Module, images: Tensor, taps: Mapping[str, tuple[str, Pool]]) -> dict[str, Tensor]:
        rows: dict[str, Tensor] = {}

        def keep(node: str, output: Tensor) -> None:
            for name, (wanted, pool) in taps.items():
                if wanted == node:
                    rows[name] = _Pooled(pool)(output)
            if len(rows) == len(taps):
                raise _DeepestReached

        def received(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            keep(str(self.classifier_input), inputs[0])

        handle = None
        if self.classifier_input and any(node == self.classifier_input for node, _ in taps.values()):
            classifier = network.get_submodule(self._uses[self.classifier_input])
            handle = classifier.register_forward_pre_hook(received)
        try:
            self._watch(
                network, images, lambda name, _, output: keep(name, output) if isinstance(output, Tensor) else None
            )
        except _DeepestReached:
            pass
        finally:
            if handle:
                handle.remove()
        return rows


class _DeepestReached(Exception):  # noqa: N818 a signal, not an error: nothing after the deepest tap needs to run
    pass


def _is_classifier(module: nn.Module | None) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1)
    return isinstance(module, nn.Linear)


def _blank(module: nn.Module, size_px: int) -> Tensor:
    """Return one image without content, where the weights are."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    return torch.zeros(1, 3, size_px, size_px, device=device)
