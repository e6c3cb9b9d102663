"""Every classification ConvNet of torchvision, by name."""

import contextlib
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from extract.backbones.backbone import Backbone, Listing, preprocessing_of, random_state
from extract.backbones.weights import State, WithoutContent, as_state
from extract.errors import BackboneError, unknown

NOT_CONVNETS = ("vit_", "swin_", "maxvit_")
TWO_HEADED = ("googlenet", "inception_v3")
"""Published weights of these come with auxiliary heads and normalise their input once more, inside the network."""

OLD_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)$")


def names() -> list[str]:
    """Return what can be asked for."""
    return [name for name in models.list_models(module=models) if not name.startswith(NOT_CONVNETS)]


def listing(name: str) -> Listing:
    """Return what `models` prints of one network, from torchvision's own record of its weights."""
    enum = _weights_of(name)
    meta = _auto(enum).meta
    scores = next(iter(meta.get("_metrics", {}).values()), {})
    return Listing(name, int(meta["num_params"]), float(meta["_ops"]), scores.get("acc@1"), [w.name for w in enum])


def open_backbone(name: str, weights: str, seed: int) -> Backbone:
    """Return torchvision's network `name` with the weights of that enum name, `auto` or `none`, not read yet."""
    if name not in names():
        unknown("model", name, names(), BackboneError, remedy="List them with: pipeline.py models")
    enum = _weights_of(name)
    chosen = _auto(enum) if weights in ("auto", "none") else _by_name(enum, weights, name)
    return Backbone(
        model=f"torchvision:{name}",
        weights="none" if weights == "none" else chosen.name,
        network=skeleton(name),
        preprocessing=preprocessing_of(chosen.transforms()),
        read=partial(random_state, partial(_build, name), seed)
        if weights == "none"
        else partial(_download, name, chosen),
        rename=renamed,
    )


def skeleton(name: str) -> nn.Module:
    """Return the network in eval mode, its parameters without content."""
    with WithoutContent():
        return _build(name, init_weights=False).eval()


def _build(name: str, *, init_weights: bool = True) -> nn.Module:
    options: dict[str, Any] = {}
    if name in TWO_HEADED:
        options = {"aux_logits": True, "transform_input": True, "init_weights": init_weights}
    return models.get_model(name, weights=None, **options)


def _weights_of(name: str) -> type[WeightsEnum]:
    return models.get_model_weights(name)


def _auto(enum: type[WeightsEnum]) -> WeightsEnum:
    """Return the V1 weights where there are any: those of the newer recipes transfer worse when frozen."""
    return enum.__members__.get("IMAGENET1K_V1", enum["DEFAULT"])


def _by_name(enum: type[WeightsEnum], weights: str, name: str) -> WeightsEnum:
    if weights not in enum.__members__:
        remedy = "Give auto, none, or the path of a weights file"
        unknown(f"weights of {name} called", weights, [w.name for w in enum], BackboneError, remedy=remedy)
    return enum[weights]


def _download(name: str, weights: WeightsEnum) -> State:
    """Fetch the weights through torchvision, which checks their hash, or find them where it left them before."""
    try:
        with contextlib.redirect_stdout(
            sys.stderr
        ):  # torch announces a download there, and results have it to themselves
            loaded = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise BackboneError(
            f"the weights {weights.name} are not on this machine and could not be downloaded ({error})",
            where=name,
            remedy="Give them as a file: --weights FILE, or use the built-in backbone: --model builtin",
        ) from error
    return renamed(as_state(loaded, where=f"{name} {weights.name}"))


def renamed(state: Mapping[str, Tensor]) -> State:
    """Return the weights under today's names: files of DenseNets still carry those of torch 0.3."""
    return {OLD_DENSENET_KEY.sub(r"\1\2", name): value for name, value in state.items()}


def downloaded(name: str) -> list[str]:
    """Return the names of those weights that lie in torch's own cache."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return [weights.name for weights in _weights_of(name) if (folder / Path(weights.url).name).is_file()]
