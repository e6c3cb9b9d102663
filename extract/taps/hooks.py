"""A network that cannot be traced, watched from outside through hooks."""

import copy
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn

from extract.errors import TapError
from extract.taps.trunk import CLOSING, DROPOUTS, Cut, Pool, Pooled, Trunk, Visit, is_classifier

Seen = Callable[[str, str, nn.Module, object], None]

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

        def seen(name: str, path: str, module: nn.Module, output: object) -> None:
            self._uses[name] = path
            if isinstance(output, Tensor):
                visit(name, list(module.parameters()), output)

        with torch.no_grad():
            _Watched(network).run(torch.zeros(1, 3, size_px, size_px), seen)

    def cut(self, taps: Mapping[str, tuple[str, Pool]]) -> Cut:
        """Copy the network without the modules that run after the deepest tap, and stop there."""
        deepest = max(self.nodes.index(node) for node, _ in taps.values())
        used = {self._uses[name] for name in self.nodes[: deepest + 1]}
        network = copy.deepcopy(self._network)
        for path, module in list(network.named_modules()):
            if path and not any(module.children()) and path not in used:
                network.set_submodule(path, nn.Identity())
        watched = _Watched(network)
        if any(node == self.classifier_input for node, _ in taps.values()):
            watched.tell_input(self._uses[str(self.classifier_input)], str(self.classifier_input))
        return Cut(network, lambda images: _rows(watched, images, taps))

    def between(self, start: str, taps: Mapping[str, tuple[str, Pool]]) -> Cut:
        """Raise TapError: from outside nobody knows what a module needs but what comes in."""
        said = "a network that cannot be traced cannot be parted"
        raise TapError(said, where=start, remedy="Train all of it: --strategy lp-ft or full, without --freeze-until")


def _rows(watched: "_Watched", images: Tensor, taps: Mapping[str, tuple[str, Pool]]) -> dict[str, Tensor]:
    rows: dict[str, Tensor] = {}

    def keep(node: str, _: str, __: nn.Module, output: object) -> None:
        for name, (wanted, pool) in taps.items():
            if wanted == node and isinstance(output, Tensor):
                rows[name] = Pooled(pool)(output)
        if len(rows) == len(taps):
            raise _DeepestReached

    with suppress(_DeepestReached):
        watched.run(images, keep)
    return rows


class _Watched:
    """A network whose modules tell what they give, to the thread that runs it: several may, side by side.

    What is told is the name of the call, the path of the module, the module, and what it gave.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._run = _Run()
        for path, module in network.named_modules():
            if path:
                module.register_forward_hook(partial(self._after, path))

    def tell_input(self, path: str, name: str) -> None:
        """Tell also what a module receives, under a name of its own."""

        def before(module: nn.Module, inputs: tuple[object, ...]) -> None:
            self._run.seen(name, path, module, inputs[0])

        self._network.get_submodule(path).register_forward_pre_hook(before)

    def run(self, images: Tensor, seen: Seen) -> None:
        """Run the network and tell `seen`."""
        self._run.seen, self._run.calls = seen, {}
        try:
            self._network(images)
        finally:
            self._run.seen = _ignore

    def _after(self, path: str, module: nn.Module, _: object, output: object) -> None:
        calls = self._run.calls
        calls[path] = calls.get(path, -1) + 1
        self._run.seen(f"{path}_{calls[path]}" if calls[path] else path, path, module, output)


def _ignore(name: str, path: str, module: nn.Module, output: object) -> None:
    """Nobody asked."""


class _Run(threading.local):
    """Whom a thread tells, and how often each module was called."""

    def __init__(self) -> None:
        self.seen: Seen = _ignore
        self.calls: dict[str, int] = {}


class _DeepestReached(Exception):  # noqa: N818 a signal, not an error: nothing after the deepest tap needs to run
    pass
