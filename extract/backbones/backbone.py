"""What every kind of backbone comes down to: a network, its weights and its own preprocessing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from extract.backbones.weights import State
from extract.recipe import Preprocessing


@dataclass(frozen=True, slots=True)
class Listing:
    """What `models` prints of a backbone: parameters, billions of multiply-adds, ImageNet top-1 %, names of weights."""

    name: str
    parameters: int
    giga_ops: float
    top1: float | None
    weights: list[str]


@dataclass(frozen=True, slots=True)
class Backbone:
    """A frozen network before it is cut: architecture, preprocessing, and the weights still to be read.

    `weights` is what they are called: an enum name, a file name, or none.

    `network` is in eval mode and has no content; `read` returns the weights by name; `rename` maps the names in a file
    to those of the network.
    """

    model: str
    weights: str
    network: nn.Module
    preprocessing: Preprocessing
    read: Callable[[], State]
    rename: Callable[[Mapping[str, Tensor]], State] = dict


def preprocessing_of(transform: Any) -> Preprocessing:
    """Read the preset that belongs to torchvision weights (`weights.transforms()`)."""
    return Preprocessing(
        resize_size=transform.resize_size[0],
        crop_size=transform.crop_size[0],
        interpolation=transform.interpolation.value,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )


def random_state(build: Callable[[], nn.Module], seed: int) -> State:
    """Return the weights of a freshly initialised network; the same for the same seed, whatever came before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(build().state_dict())
