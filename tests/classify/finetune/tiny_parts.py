"""A network of few numbers in two parts, built by hand: BatchNorm and dropout in both, two blocks in the tail."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from extract.parts import Parts
from extract.recipe import Preprocessing
from extract.taps import Cut

PRESET = Preprocessing(12, 12, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
WIDTH = 6


def _block(start: int, end: int) -> nn.Sequential:
    layers = [
        ("conv", nn.Conv2d(start, end, 3, padding=1, bias=False)),
        ("bn", nn.BatchNorm2d(end)),
        ("relu", nn.ReLU(True)),
    ]
    return nn.Sequential(OrderedDict([*layers, ("drop", nn.Dropout(0.5))]))


def _settled(module: nn.Module) -> nn.Module:
    """Statistics of BatchNorm that are not those it begins with, and so would show if they were used or moved."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            part.num_batches_tracked.fill_(7)
    return module.eval()


def tail_module() -> nn.Sequential:
    top = nn.Sequential(OrderedDict(block=_block(5, WIDTH), pool=nn.AdaptiveAvgPool2d(1), rows=nn.Flatten()))
    return nn.Sequential(OrderedDict(one=_block(4, 5), two=top))


def tiny_parts(*, trunk: bool = True, seed: int = 0) -> Parts:
    """Two parts: trunk 3 -> 4 channels at half the side, tail 4 -> 6 numbers; without a trunk the tail has all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        low = _settled(nn.Sequential(OrderedDict(zero=_block(3, 4), pool=nn.MaxPool2d(2))))
        tail = _settled(tail_module())
    tail = tail if trunk else nn.Sequential(OrderedDict(low=low, high=tail)).eval()
    names: dict[str, list[str]] = {}
    for name, _ in tail.named_parameters():
        names.setdefault(name.rsplit(".", 2)[0], []).append(name)
    return Parts(
        trunk=Cut(low.requires_grad_(False), lambda x: {"trunk": low(x)}) if trunk else None,
        tail=Cut(tail, lambda x: {"tail": tail(x)}),
        node="pool" if trunk else None,
        width=WIDTH,
        blocks=tuple(map(tuple, names.values())),
    )


def pixels(n: int = 8, seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (n, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def maps(n: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(n, 4, 6, 6, generator=torch.Generator().manual_seed(seed))
