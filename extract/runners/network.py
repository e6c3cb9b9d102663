"""The network as runners run it: normalisation inside, BatchNorm folded, in the recipe's precision, channels last."""

import copy

import torch
from torch import Tensor, fx, nn

from extract.devices import DTYPES
from extract.forward import Extractor, freeze
from extract.runners.folding import fold
from extract.spec import Preprocessing


class Network(nn.Module):
    """Pixels (n, 3, S, S) uint8, channels last -> per tap (n, *shape) in the stored type."""

    def __init__(self, cut: nn.Module, recipe_dtype: torch.dtype, stored: torch.dtype, preset: Preprocessing) -> None:
        super().__init__()
        self.cut = cut
        self._dtype, self._stored = recipe_dtype, stored
        self.normalise = Normalise(preset)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Normalise in float32, run the cut, and round what it says once."""
        rows = self.cut(self.normalise(pixels).to(self._dtype))
        return {name: values.to(self._stored) for name, values in rows.items()}


class Normalise(nn.Module):
    """uint8 -> float32, (x - 255 mean) / (255 std) per channel: the preset's scaling and standardising at once."""

    mean: Tensor
    scale: Tensor

    def __init__(self, preset: Preprocessing) -> None:
        super().__init__()
        mean = 255 * torch.tensor(preset.mean, dtype=torch.float64)
        scale = 1 / (255 * torch.tensor(preset.std, dtype=torch.float64))
        self.register_buffer("mean", mean.float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", scale.float().view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Same shape and memory format."""
        return pixels.float().sub_(self.mean).mul_(self.scale)


class Watched(nn.Module):
    """A network that is watched through hooks, as it is; in half precision under autocast, as it may name a dtype."""

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self._run, self._kind = extractor.cut.run, extractor.device.type
        self._dtype = DTYPES[extractor.recipe.precision]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (n, 3, S, S) float32 -> per tap (n, *shape) float32."""
        with torch.autocast(self._kind, dtype=self._dtype, enabled=self._dtype != torch.float32):
            return self._run(images)


def is_traced(extractor: Extractor) -> bool:
    """Tell whether the network is a graph, which can be changed and compiled."""
    return isinstance(extractor.cut.module, fx.GraphModule)


def build_network(extractor: Extractor) -> Network:
    """Copy the cut network and make it fast on its device; the extractor's own stays as it is."""
    recipe = extractor.recipe
    stored = getattr(torch, recipe.store)
    if not isinstance(extractor.cut.module, fx.GraphModule):
        return _placed(Network(Watched(extractor), torch.float32, stored, recipe.preprocessing), extractor)
    cut = copy.deepcopy(extractor.cut.module)
    fold(cut)
    dtype = DTYPES[recipe.precision]
    return _placed(Network(cut.to(dtype), dtype, stored, recipe.preprocessing), extractor)


def _placed(network: Network, extractor: Extractor) -> Network:
    freeze(network).to(extractor.device).to(memory_format=torch.channels_last)
    return network
