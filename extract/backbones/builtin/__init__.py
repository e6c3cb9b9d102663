"""The backbone that comes along: a small residual network trained on CIFAR-10 by `train.py` beside this file.

How it was trained and what it reaches: docs/builtin-backbone.md.
"""

import json
from functools import partial
from pathlib import Path

from torch import nn

from extract.backbones.backbone import Backbone, Listing, random_state
from extract.backbones.builtin.network import MEAN, STD, CifarResNet
from extract.backbones.weights import WithoutContent, read_state
from extract.errors import BackboneError, unknown
from extract.recipe import Preprocessing

HERE = Path(__file__).parent
GIGA_OPS = 0.106


def names() -> list[str]:
    """Return what can be asked for."""
    return ["cifar_resnet14"]


def listing(name: str) -> Listing:
    """Return what `models` prints of it."""
    record = json.loads((HERE / f"{name}.json").read_text())
    return Listing(f"builtin:{name}", record["parameters"], GIGA_OPS, None, ["CIFAR10"])


def local(name: str) -> list[str]:
    """Return the names of the weights that are on this machine."""
    return listing(name).weights


def open_backbone(name: str, weights: str, seed: int) -> Backbone:
    """Return it with the weights it comes with (`auto`), or seeded random ones (`none`)."""
    if name not in names():
        unknown("built-in model", name, names(), BackboneError)
    if weights not in ("auto", "none", "CIFAR10"):
        unknown(f"weights of builtin:{name} called", weights, ["auto", "none", "CIFAR10"], BackboneError)
    return Backbone(
        model=f"builtin:{name}",
        weights="none" if weights == "none" else "CIFAR10",
        network=skeleton(name),
        preprocessing=Preprocessing(resize_size=32, crop_size=32, interpolation="bilinear", mean=MEAN, std=STD),
        read=partial(random_state, CifarResNet, seed)
        if weights == "none"
        else partial(read_state, HERE / f"{name}.safetensors"),
    )


def skeleton(name: str) -> nn.Module:
    """Return the network in eval mode, its parameters without content."""
    with WithoutContent():
        return CifarResNet().eval()
