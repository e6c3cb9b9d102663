"""The extractor: a backbone cut at its taps, frozen and in eval mode, and what of it the rows depend on.

The network here is the exact one, in fp32 and with nothing folded: the plain reference. `runners` run it fast.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torchvision.transforms import functional as F

from extract.backbones import digest, fit_state, open_backbone, open_skeleton, read_state
from extract.backbones.weights import State
from extract.devices import check_tf32, computes_bf16, device_names, full_fp32, pick_device, resolve_precision
from extract.errors import BackboneError, OptionError, TapError, first_line, unknown
from extract.images import DECODERS
from extract.pooling import make_pool
from extract.recipe import PENULTIMATE, Preprocessing, Recipe, Tap
from extract.record import Failure, Status
from extract.resample import ON_A_DEVICE
from extract.spec import STAGES, ExtractSpec
from extract.store.index import by_layer, versions
from extract.taps import Cut, Trunk, open_trunk
from extract.views import drawn_from

log = logging.getLogger(__name__)

IMAGE_PIXELS = 224**2
BATCHES = {"cpu": (32, 256), "cuda": (256, 2048)}
"""By kind of device: images of 224 x 224 whose pixels make a batch, and the most images in one."""

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Extractor:
    """A cut network on its device, and the recipe it carries out.

    `cut` computes in fp32 whatever the recipe says. `shapes` has the shape of one row of each layer of the recipe:
    (D,), or (C, h, w) where a tap is kept as a map; layers of further views as in `layer4@1`.
    """

    recipe: Recipe
    cut: Cut
    device: torch.device
    shapes: Shapes

    @property
    def batch_size(self) -> int:
        """Images per pass where nobody said: as many pixels as suit the device, and 8 images or more."""
        images, most = BATCHES[self.device.type]
        return max(8, min(most, images * IMAGE_PIXELS // self.recipe.preprocessing.crop_size**2))

    @property
    def writer(self) -> dict[str, str]:
        """What computes the rows, for the record: versions, and the kind of device."""
        return {**versions(), "device": self.device.type}

    def exact(self, pixels: Tensor) -> dict[str, np.ndarray]:
        """Compute rows plainly, in full fp32: (N, 3, S, S) uint8 on any device -> per tap (N, *shape) float32."""
        with torch.inference_mode(), full_fp32():
            images = normalise(pixels.to(self.device), self.recipe.preprocessing)
            rows = self.cut.run(images.contiguous(memory_format=torch.channels_last))
            return {name: values.cpu().numpy() for name, values in rows.items()}

    def weights(self) -> bytes:
        """Return the weights of the cut network as a safetensors file."""
        state = self.cut.module.state_dict()
        return save({name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()})


def normalise(pixels: Tensor, preset: Preprocessing) -> Tensor:
    """Scale to 0..1 and standardise per channel, as torchvision's preset does: uint8 -> float32, same shape."""
    return F.normalize(F.convert_image_dtype(pixels, torch.float32), list(preset.mean), list(preset.std), inplace=True)


def not_finite(store: str) -> Failure:
    """Return what becomes of a row that the stored type cannot hold."""
    return Failure(Status.NOT_FINITE, f"features beyond the range of {store}")


def build_extractor(spec: ExtractSpec) -> Extractor:
    """Open the backbone that `spec` names, cut it at its taps and read the weights it needs.

    Of several devices it lies on the first one.
    """
    backbone = open_backbone(spec.backbone)
    device = pick_device(device_names(spec.device)[0])
    precision = resolve_precision(spec.precision, device)
    _check(spec, precision, device, backbone.preprocessing.interpolation)
    trunk = open_trunk(backbone.network)
    taps, nodes = resolve_taps(trunk, spec.taps, backbone.preprocessing.crop_size)
    cut = _cut(trunk, zip(taps, nodes, strict=True))
    shapes = _shapes(cut, backbone.preprocessing)
    where = f"{backbone.model} {spec.backbone.weights}"
    state = fit_state(backbone.network, cut.module.state_dict(), backbone.read(), where=where)
    recipe = Recipe(
        model=backbone.model,
        weights_sha256=digest(state),
        taps=taps,
        nodes=nodes,
        preprocessing=backbone.preprocessing,
        decoder=DECODERS[spec.decoder],
        precision=precision,
        store=_store(spec.store, precision),
        tf32=spec.tf32,
        views=spec.views,
        view_seed=spec.view_seed if spec.views > drawn_from(flips=spec.view_flips) else 0,
        view_flips=spec.view_flips or spec.views == 1,
    )
    return Extractor(recipe, _loaded(cut, state, device), device, by_layer(recipe, shapes))


def _check(spec: ExtractSpec, precision: str, device: torch.device, interpolation: str) -> None:
    """Refuse what the device cannot do; raises OptionError."""
    if spec.tf32:
        check_tf32(precision, device)
    if spec.decoder == "gpu" and device.type != "cuda":
        raise OptionError(f"no GPU decodes images on a {device.type}", remedy="Take --decoder exact, or --device cuda")
    if spec.decoder == "gpu" and interpolation not in ON_A_DEVICE:
        remedy = f"Take --decoder exact, or --interpolation {' or '.join(ON_A_DEVICE)}"
        raise OptionError(f"what a GPU decodes it cannot resize by {interpolation!r}", remedy=remedy)


def rebuild_extractor(
    recipe: Recipe, weights: Path, layers: Collection[str] | None = None, *, device: str = "auto"
) -> Extractor:
    """Return the extractor of a recipe from its stored weights, which are proven to be the same ones.

    Of some taps, by name, in the centre view, or, with no `layers`, of all taps in all views. Raises TapError where the
    recipe lacks one.
    """
    if missing := set(layers or ()) - {tap.name for tap in recipe.taps}:
        unknown("tap of the recipe", min(missing), [tap.name for tap in recipe.taps], TapError)
    if recipe.decoder not in DECODERS.values():
        raise BackboneError(f"the recipe decodes images otherwise ({recipe.decoder!r})", remedy="Extract and fit again")
    state = read_state(weights)
    if digest(state) != recipe.weights_sha256:
        raise BackboneError("the weights are not those of the recipe", where=str(weights), remedy="Fit again")
    chosen = pick_device(device)
    _check_precision(recipe, chosen)
    pairs = zip(recipe.taps, recipe.nodes, strict=True)
    wanted = [(tap, node) for tap, node in pairs if layers is None or tap.name in layers]
    cut = _cut(open_trunk(open_skeleton(recipe.model)), wanted)
    needed = {name: state[name] for name in cut.module.state_dict()}
    shapes = _shapes(cut, recipe.preprocessing)
    loaded = _loaded(cut, needed, chosen)
    return Extractor(recipe, loaded, chosen, by_layer(recipe, shapes) if layers is None else shapes)


def _check_precision(recipe: Recipe, device: torch.device) -> None:
    """Refuse what would give other rows than the recipe says; emulated bf16 gives the same ones, slowly."""
    if recipe.decoder == DECODERS["gpu"] and device.type != "cuda":
        said = f"the images were decoded by a GPU, and this is a {device.type}"
        raise OptionError(said, remedy="Take --device cuda, or extract with --decoder exact")
    if recipe.precision == "bf16" and not computes_bf16(device):
        log.warning("this %s only emulates bf16, which the features were extracted in: that is slow", device.type)
        return
    try:
        resolve_precision(recipe.precision, device)
        if recipe.tf32:
            check_tf32(recipe.precision, device)
    except OptionError as error:
        said = f"the features were extracted otherwise: {error.what}"
        raise OptionError(said, remedy="Take --device cuda, or extract with --precision fp32") from error


def resolve_taps(trunk: Trunk, texts: Iterable[str], size_px: int) -> tuple[tuple[Tap, ...], tuple[str, ...]]:
    """Read `NAME[:POOL]` taps, with `stages` spelled out: the taps from shallow to deep, and their nodes."""
    found: dict[Tap, str] = {}
    for tap in map(Tap.parse, texts):
        layers = trunk.stages(size_px) if tap.layer == STAGES else [tap.layer]
        for layer in layers:
            found[Tap(layer, tap.pool)] = trunk.penultimate() if layer == PENULTIMATE else trunk.resolve(layer)
    if not found:
        raise TapError("no layer asked for", remedy="Take --layer penultimate")
    ordered = sorted(found, key=lambda tap: (trunk.nodes.index(found[tap]), tap.name))
    return tuple(ordered), tuple(found[tap] for tap in ordered)


def _cut(trunk: Trunk, taps: Iterable[tuple[Tap, str]]) -> Cut:
    return trunk.cut({tap.name: (node, make_pool(tap.pool)) for tap, node in taps})


def _shapes(cut: Cut, preset: Preprocessing) -> Shapes:
    """Return the shape of one row of each tap, from a run without content."""
    side = preset.crop_size
    try:
        with torch.no_grad():
            rows = cut.run(torch.zeros(1, 3, side, side, device="meta"))
    except (RuntimeError, ValueError) as error:
        said = f"the network cannot take {side} x {side} pixels ({first_line(error)})"
        raise OptionError(said, remedy="Take a larger --crop-size") from error
    return {name: tuple(values.shape[1:]) for name, values in rows.items()}


def _loaded(cut: Cut, state: State, device: torch.device) -> Cut:
    cut.module.load_state_dict(state, strict=True, assign=True)
    freeze(cut.module).to(device).to(memory_format=torch.channels_last)
    return cut


def freeze(network: nn.Module) -> nn.Module:
    """Put a network into eval mode, gradients off."""
    return network.eval().requires_grad_(False)


def _store(asked: str, precision: str) -> str:
    """Resolve `auto`: half precision holds all that a half-precision network says, and not all of fp32."""
    return asked if asked != "auto" else "float32" if precision == "fp32" else "float16"
