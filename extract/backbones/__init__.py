"""Backbones: frozen networks with their weights and their own preprocessing, one module per kind."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from extract.backbones import builtin, torchvision_nets
from extract.backbones.backbone import Backbone, Listing
from extract.backbones.weights import SUFFIXES, check_file, digest, fit_state, read_state
from extract.errors import BackboneError, unknown
from extract.recipe import Preprocessing
from extract.spec import BackboneSpec

__all__ = [
    "KINDS",
    "Backbone",
    "Kind",
    "Listing",
    "digest",
    "fit_state",
    "open_backbone",
    "open_skeleton",
    "read_state",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of backbone: what it offers, opening one with its weights, its bare architecture, weights at hand."""

    names: Callable[[], list[str]]
    listing: Callable[[str], Listing]
    open: Callable[[str, str, int], Backbone]
    skeleton: Callable[[str], nn.Module]
    local: Callable[[str], list[str]]


KINDS = {
    "torchvision": Kind(
        torchvision_nets.names,
        torchvision_nets.listing,
        torchvision_nets.open_backbone,
        torchvision_nets.skeleton,
        torchvision_nets.downloaded,
    ),
    "builtin": Kind(builtin.names, builtin.listing, builtin.open_backbone, builtin.skeleton, builtin.local),
}


def open_backbone(spec: BackboneSpec) -> Backbone:
    """Return the backbone that `spec` names; its weights are read later, once it is known which of them are needed."""
    kind, name = _kind_of(spec.model)
    is_file = Path(spec.weights).suffix in SUFFIXES or Path(spec.weights).is_file()
    backbone = kind.open(name, "auto" if is_file else spec.weights, spec.seed)
    if is_file:
        path = Path(spec.weights)
        check_file(path)
        backbone = replace(backbone, weights=path.name, read=partial(_read_file, path, backbone))
    if spec.overrides:
        changed = Preprocessing(**{**asdict(backbone.preprocessing), **dict(spec.overrides)})
        backbone = replace(backbone, preprocessing=changed)
    return backbone


def open_skeleton(model: str) -> nn.Module:
    """Return the architecture of a recipe's `model`, in eval mode and without weights."""
    kind, name = _kind_of(model)
    if name not in kind.names():
        unknown("model", name, kind.names(), BackboneError)
    return kind.skeleton(name)


def _kind_of(model: str) -> tuple[Kind, str]:
    """Split `KIND:NAME`; a bare name is torchvision's, and `builtin` alone its only network."""
    kind, colon, name = model.partition(":")
    if model == "builtin":
        kind, name = "builtin", ""
    elif not colon:
        kind, name = "torchvision", model
    if kind not in KINDS:
        unknown("kind of model", kind, KINDS, BackboneError, remedy="Write NAME or KIND:NAME")
    if not name and kind == "builtin":
        name = KINDS[kind].names()[0]
    return KINDS[kind], name


def _read_file(path: Path, backbone: Backbone) -> dict:
    return backbone.rename(read_state(path))
