"""The extractor: a backbone cut at its taps, which turns pixels into rows. Frozen, and always in eval mode."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torchvision.transforms import functional as F

from extract.backbones import digest, fit_state, open_backbone, open_skeleton, read_state
from extract.backbones.weights import State
from extract.errors import BackboneError, OptionError, TapError
from extract.images import DECODER
from extract.pooling import make_pool
from extract.spec import PENULTIMATE, STAGES, ExtractSpec, Failure, Preprocessing, Recipe, Status, Tap
from extract.store.index import versions
from extract.taps import Cut, Trunk, open_trunk

BATCH_PIXELS = 32 * 224**2
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Extractor:
    """A cut network on its device, and the recipe it carries out. `dims` are the columns of each tap."""

    recipe: Recipe
    cut: Cut
    device: torch.device
    dims: dict[str, int]

    @property
    def batch_size(self) -> int:
        """Images per pass where nobody said: the pixels of 32 images of 224 x 224, and 8 to 256 images."""
        return max(8, min(256, BATCH_PIXELS // self.recipe.preprocessing.crop_size**2))

    @property
    def writer(self) -> dict[str, str]:
        """What computes the rows, for the record: versions, and the kind of device."""
        return {**versions(), "device": self.device.type}

    def send(self, images: Sequence[Tensor]) -> Tensor:
        """Bring N images (3, H, W) uint8 to the device as one batch (N, 3, H, W)."""
        return torch.stack(list(images)).to(self.device)

    def __call__(self, pixels: Tensor) -> dict[str, np.ndarray]:
        """Compute the rows of a batch on the device: (N, 3, H, W) uint8 -> per tap (N, D) in the stored type."""
        with torch.inference_mode(), self._autocast():
            images = normalise(pixels, self.recipe.preprocessing)
            rows = self.cut.run(images.contiguous(memory_format=torch.channels_last))
            return {name: _stored(value, self.recipe.store) for name, value in rows.items()}

    def _autocast(self) -> torch.autocast:
        dtype = DTYPES[self.recipe.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def weights(self) -> bytes:
        """Return the weights of the cut network as a safetensors file."""
        state = self.cut.module.state_dict()
        return save({name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()})


def normalise(pixels: Tensor, preset: Preprocessing) -> Tensor:
    """Scale to 0..1 and standardise per channel, as torchvision's preset does: uint8 -> float32, same shape."""
    return F.normalize(F.convert_image_dtype(pixels, torch.float32), list(preset.mean), list(preset.std), inplace=True)


def _stored(rows: Tensor, store: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and the row a bad one
        return rows.float().cpu().numpy().astype(store, copy=False)


def not_finite(store: str) -> Failure:
    """Return what becomes of a row that the stored type cannot hold."""
    return Failure(Status.NOT_FINITE, f"features beyond the range of {store}")


def build_extractor(spec: ExtractSpec) -> Extractor:
    """Open the backbone that `spec` names, cut it at its taps and read the weights it needs."""
    backbone = open_backbone(spec.backbone)
    device = pick_device(spec.device)
    trunk = open_trunk(backbone.network)
    taps, nodes = resolve_taps(trunk, spec.taps, backbone.preprocessing.crop_size)
    cut = _cut(trunk, taps, nodes)
    dims = _dims(cut, backbone.preprocessing)
    where = f"{backbone.model} {spec.backbone.weights}"
    state = fit_state(backbone.network, cut.module.state_dict(), backbone.read(), where=where)
    precision = _precision(spec.precision, device)
    recipe = Recipe(
        model=backbone.model,
        weights_sha256=digest(state),
        taps=taps,
        nodes=nodes,
        preprocessing=backbone.preprocessing,
        decoder=DECODER,
        precision=precision,
        store=_store(spec.store, precision),
    )
    return Extractor(recipe, _loaded(cut, state, device), device, dims)


def rebuild_extractor(recipe: Recipe, weights: Path, layer: str, *, device: str = "auto") -> Extractor:
    """Return the extractor of one tap of a recipe, from its stored weights, which are proven to be the same ones."""
    if recipe.decoder != DECODER:
        raise BackboneError(f"the recipe decodes images otherwise ({recipe.decoder!r})", remedy="Extract and fit again")
    state = read_state(weights)
    if digest(state) != recipe.weights_sha256:
        raise BackboneError("the weights are not those of the recipe", where=str(weights), remedy="Fit again")
    chosen = pick_device(device)
    [(tap, node)] = [pair for pair in zip(recipe.taps, recipe.nodes, strict=True) if pair[0].name == layer]
    cut = _cut(open_trunk(open_skeleton(recipe.model)), [tap], [node])
    needed = {name: state[name] for name in cut.module.state_dict()}
    dims = _dims(cut, recipe.preprocessing)
    return Extractor(recipe, _loaded(cut, needed, chosen), chosen, dims)


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


def _cut(trunk: Trunk, taps: Sequence[Tap], nodes: Sequence[str]) -> Cut:
    return trunk.cut({tap.name: (node, make_pool(tap.pool)) for tap, node in zip(taps, nodes, strict=True)})


def _dims(cut: Cut, preset: Preprocessing) -> dict[str, int]:
    """Columns of each tap, from a run without content."""
    side = preset.crop_size
    try:
        with torch.no_grad():
            rows = cut.run(torch.zeros(1, 3, side, side, device="meta"))
    except (RuntimeError, ValueError) as error:
        said = f"the network cannot take {side} x {side} pixels ({str(error).splitlines()[0]})"
        raise OptionError(said, remedy="Take a larger --crop-size") from error
    return {name: values.shape[1] for name, values in rows.items()}


def _loaded(cut: Cut, state: State, device: torch.device) -> Cut:
    cut.module.load_state_dict(state, strict=True, assign=True)
    freeze(cut.module).to(device).to(memory_format=torch.channels_last)
    return cut


def freeze(network: nn.Module) -> nn.Module:
    """Put a network into eval mode, gradients off."""
    return network.eval().requires_grad_(False)


def pick_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
        torch.backends.cudnn.allow_tf32 = False  # fp32 is to mean fp32 on every device
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"no device {name!r} here", remedy="Take --device cpu") from error
    return device


def _precision(asked: str, device: torch.device) -> str:
    """Resolve `auto` to fp32, which every machine computes alike; half precision is asked for by name."""
    if asked == "fp16" and device.type == "cpu":
        raise OptionError("a CPU computes fp16 very slowly", remedy="Take --precision bf16 or fp32")
    return "fp32" if asked == "auto" else asked


def _store(asked: str, precision: str) -> str:
    """Resolve `auto`: half precision holds all that a half-precision network says, and not all of fp32."""
    return asked if asked != "auto" else "float32" if precision == "fp32" else "float16"
