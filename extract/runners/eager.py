"""The eager runner: the network as PyTorch runs it, operator by operator. It works everywhere, at once."""

import torch
from torch import Tensor

from extract.forward import Extractor
from extract.runners.chunks import Chunked, Limit
from extract.runners.network import build_network
from extract.runners.runner import Lane


class Eager:
    """All lanes run the same module, which keeps nothing between calls."""

    name = "eager"

    def __init__(self, extractor: Extractor, *, batch_size: int, lanes: int) -> None:
        self._network = build_network(extractor)
        self._limit = Limit(batch_size)

    def lane(self) -> Lane:
        """Return a lane for the thread that asks."""
        return Chunked(lambda _: self._run, self._limit)

    @torch.inference_mode()
    def _run(self, pixels: Tensor) -> dict[str, Tensor]:
        return self._network(pixels)
