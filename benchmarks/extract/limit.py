"""The limit of this machine for a network: what its cores would reach at their peaks with nothing else to do.

A core's time for an image is the FLOP of the cut network at the peak of a 3x3 convolution (the best size, all cores at
work), and one decoding by the fastest decoder. This is the `limit`, and the goals are of it. `with_resize` adds the
resizing and cropping, which no design avoids either.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model

from benchmarks.extract.harness import CORES
from benchmarks.extract.rivals.common import HEADS

DECODERS = ("pillow", "simplejpeg")


def flops(name: str) -> int:
    """Count the operations of a network before its classifier on 224 x 224 pixels; a multiply-add counts as two."""
    with torch.device("meta"):
        network = get_model(name, weights=None).eval()
        network.set_submodule(HEADS[name], nn.Flatten())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, 224, 224))
    return counter.get_total_flops()


def highest(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the best of each peak: what others took of the machine while it was measured would flatter us."""
    best: dict[str, float] = {}
    for peaks in rounds:
        best = {name: max(value, best.get(name, 0.0)) for name, value in peaks.items()}
    return best


def limits(name: str, peaks: Mapping[str, float], precision: str) -> dict[str, float]:
    """Return images/s of all cores at the peaks of one core, with decoding, and with decoding and resizing."""
    forward_s = flops(name) / 1e9 / peaks[precision]
    decode_s = 1 / max(peaks[decoder] for decoder in DECODERS if decoder in peaks)
    resize_s = 1 / peaks["resize"]
    return {"limit": CORES / (forward_s + decode_s), "with_resize": CORES / (forward_s + decode_s + resize_s)}
