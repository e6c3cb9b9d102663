"""A network that cannot be traced, watched from outside through hooks."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from extract.taps.trunk import CLOSING, DROPOUTS, Cut, Pool, Pooled, Trunk, Visit, is_classifier

INPUT_OF = "/input"
"""Suffix of the node that is what a module received: the penultimate one of a network watched through hooks."""


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
        if last and is_classifier(last[1]):
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
                    rows[name] = Pooled(pool)(output)
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
