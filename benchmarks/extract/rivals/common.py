"""What the rivals share: their options, the network, and the clock that leaves the first batch out."""

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path

import torch
import torchvision
from torch import nn

BATCH = 32
HEADS = {"resnet18": "fc", "resnet50": "fc", "mobilenet_v2": "classifier", "squeezenet1_1": "classifier"}


def options(description: str | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path, help="photos, in class folders")
    parser.add_argument("--model", choices=HEADS, default="resnet18")
    parser.add_argument("--state", type=Path, required=True, help="state dict of the network")
    parser.add_argument("--out", type=Path, required=True, help="folder of the features")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def photos(folder: Path) -> list[Path]:
    """List the photos in the order of their paths."""
    return sorted(folder.rglob("*.jpg"))


def headless(name: str, state: Path) -> nn.Module:
    """Return torchvision's network with the weights of a file, in eval mode; it ends before its classifier."""
    network = getattr(torchvision.models, name)(weights=None)
    network.load_state_dict(torch.load(state))
    setattr(network, HEADS[name], nn.AdaptiveAvgPool2d(1) if name.startswith("squeezenet") else nn.Identity())
    return network.eval()


class Clock:
    """Counts images and seconds from the end of the first batch on."""

    def __init__(self) -> None:
        self.images, self.first, self.began, self.ended = 0, 0, 0.0, 0.0

    def tick(self, images: int) -> None:
        """Count a batch that is done."""
        self.ended = time.perf_counter()
        if not self.images:
            self.first, self.began = images, self.ended
        self.images += images

    def say(self, **more: object) -> None:
        """Print the figures; one batch alone has no rate."""
        seconds, later = self.ended - self.began, self.images - self.first
        figures = {"images": self.images, "steady_s": seconds, "images_per_s": later / seconds if later else None}
        print(json.dumps({**figures, **more}))


def names(paths: Iterable[Path], folder: Path) -> list[str]:
    """Return the ids that this project gives the photos."""
    return [path.relative_to(folder).as_posix() for path in paths]
