"""The network as runners run it: normalisation inside, BatchNorm folded, in the recipe's precision, channels last."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from extract.devices import DTYPES
from extract.errors import OptionError
from extract.forward import Extractor, freeze
from extract.recipe import Preprocessing
from extract.runners.folding import fold


class Network(nn.Module):
    """Pixels (n, 3, S, S) uint8, channels last -> per tap (n, *shape) float32, not rounded yet.

    `cut` takes images (n, 3, S, S) in the type `dtype`.
    """

    def __init__(self, cut: nn.Module, dtype: torch.dtype, preset: Preprocessing) -> None:
        super().__init__()
        self.cut, self._dtype = cut, dtype
        self.normalise: nn.Module = Normalise(preset)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Normalise in float32, then run the cut."""
        return self.cut(self.normalise(pixels).to(self._dtype))


class Normalise(nn.Module):
    """uint8 -> float32, (x - 255 mean) / (255 std) per channel: the preset's scaling and standardising at once."""

    mean: Tensor
    scale: Tensor

    def __init__(self, preset: Preprocessing) -> None:
        super().__init__()
        mean = 255 * torch.tensor(preset.mean, dtype=torch.float64)
        scale = 1 / (255 * torch.tensor(preset.std, dtype=torch.float64))
        self.register_buffer("mean", mean.float().view(3, 1, 1), persistent=False)
        self.register_buffer("scale", scale.float().view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Same shape and memory format."""
        return pixels.float().sub_(self.mean).mul_(self.scale)


class NormaliseRows(nn.Module):
    """The same numbers from whole rows of pixels: inner loops of 3 channels take a tenth of a small network's time."""

    mean: Tensor
    scale: Tensor

    def __init__(self, preset: Preprocessing) -> None:
        super().__init__()
        plain, side = Normalise(preset), preset.crop_size
        self.register_buffer("mean", plain.mean.flatten().repeat(side), persistent=False)
        self.register_buffer("scale", plain.scale.flatten().repeat(side), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Same shape and memory format."""
        n, channels, height, width = pixels.shape
        rows = pixels.permute(0, 2, 3, 1).reshape(n, height, width * channels)
        return rows.float().sub_(self.mean).mul_(self.scale).view(n, height, width, channels).permute(0, 3, 1, 2)


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


def build_network(extractor: Extractor, precision: str) -> Network:
    """Copy the cut network, frozen on its device: the extractor's own stays as it is."""
    preset, cut = extractor.recipe.preprocessing, extractor.cut.module
    if isinstance(cut, fx.GraphModule):
        cut = copy.deepcopy(cut)
        fold(cut)
        network = Network(cut.to(DTYPES[precision]), DTYPES[precision], preset)
    else:
        network = Network(Watched(extractor), torch.float32, preset)
    freeze(network).to(extractor.device).to(memory_format=torch.channels_last)
    return network


def build_to_compile(extractor: Extractor, precision: str) -> Network:
    """Build the network for a compiler; raises OptionError where there is no graph of it."""
    if not isinstance(extractor.cut.module, fx.GraphModule):
        said = "a network that cannot be traced cannot be compiled either"
        raise OptionError(said, where=extractor.recipe.model, remedy="Take --compile none")
    return build_network(extractor, precision)


def rounded(rows: Mapping[str, Tensor], store: str) -> dict[str, Tensor]:
    """Bring rows into the stored type; what float16 cannot hold becomes infinite."""
    return {name: values.to(getattr(torch, store)) for name, values in rows.items()}
