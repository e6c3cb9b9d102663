"""The eager runner: the network as PyTorch runs it, operator by operator. It works everywhere, at once."""

import torch
from torch import Tensor, fx

from extract.devices import computes_bf16
from extract.forward import Extractor, freeze
from extract.runners.chunks import Chunked, Limit
from extract.runners.fusing import fuse, fuses
from extract.runners.network import NormaliseRows, build_network, rounded
from extract.runners.runner import Lane


class Eager:
    """All lanes run the same module, which keeps nothing between calls."""

    name = "eager"

    def __init__(self, extractor: Extractor, *, batch_size: int) -> None:
        recipe, device = extractor.recipe, extractor.device
        self._network, self._store = build_network(extractor, recipe.precision), recipe.store
        self._limit = Limit(batch_size)
        if device.type == "cpu":
            self._network.normalise = NormaliseRows(recipe.preprocessing)
            native = recipe.precision == "fp32" or computes_bf16(device)
            if isinstance(self._network.cut, fx.GraphModule) and native and fuses():
                fuse(self._network.cut)
        freeze(self._network)

    def lane(self) -> Lane:
        """Return a lane for the thread that asks."""
        return Chunked(lambda _: self._run, self._limit)

    @torch.inference_mode()
    def _run(self, pixels: Tensor) -> dict[str, Tensor]:
        return rounded(self._network(pixels), self._store)
