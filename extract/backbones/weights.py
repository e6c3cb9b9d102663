"""Weights: reading them without running anything, and fitting them to a network with a readable difference."""

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from extract.errors import BackboneError
from extract.recipe import weights_digest

State = dict[str, Tensor]

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Where training scripts keep the weights inside a checkpoint."""

SHOWN = 4


class WithoutContent(TorchFunctionMode):
    """Networks built inside have parameters of the right shape on the meta device, at no cost in memory or time.

    Only what layers allocate is diverted; arithmetic that decides the architecture (RegNet's widths) runs as ever.
    """

    FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.FACTORIES:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def check_file(path: Path) -> None:
    """Raise BackboneError where there is no such file."""
    if not path.is_file():
        raise BackboneError("no such weights file", where=str(path), remedy="Give the path of a state dict")


def read_state(path: Path) -> State:
    """Read a weights file (`.safetensors`, or `.pt`/`.pth` with `weights_only=True`) as tensors by name."""
    check_file(path)
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else _torch_load(path)
    except Exception as error:  # hostile and broken files make the readers raise anything
        raise BackboneError(
            f"not a weights file that can be read without running it ({type(error).__name__})",
            where=str(path),
            remedy="Copy it again if it was cut short, or save a state dict: torch.save(model.state_dict(), FILE)",
        ) from error
    return as_state(loaded, where=str(path))


def _torch_load(path: Path) -> object:
    """Load without running anything; PyTorch stores tensors as they are, so a compressed file is a bomb."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed members")
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise ValueError("members that overlap")
    return torch.load(path, map_location="cpu", weights_only=True)


def as_state(loaded: object, *, where: str) -> State:
    """Unwrap a checkpoint to name -> tensor, as it is; raises BackboneError for anything that is no state dict."""
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise BackboneError("holds no state dict", where=where, remedy="Save model.state_dict()")
    for name, value in loaded.items():
        if not _is_plain(value):
            raise BackboneError(f"{name} is no plain tensor", where=where, remedy="Save model.state_dict() as it is")
    prefix = "module." if all(str(name).startswith("module.") for name in loaded) else ""
    return {str(name).removeprefix(prefix): value for name, value in loaded.items()}


def _is_plain(value: Tensor) -> bool:
    """Tell whether a tensor has all of its numbers: a view can claim any size, and sparse or meta ones hold none."""
    if value.layout != torch.strided or value.is_meta or value.is_complex() or value.is_quantized:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def fit_state(network: nn.Module, needed: Iterable[str], state: Mapping[str, Tensor], *, where: str) -> State:
    """Return the part of `state` that a cut network needs, as float32.

    The whole of `state` must fit `network`, but for layers above the cut: a checkpoint of another number of classes is
    fine while its classifier is not used. Raises BackboneError with the difference.
    """
    needed = set(needed)
    whole = network.state_dict()
    above = {name for name in whole if name not in needed}
    missing = [name for name in needed - state.keys() if not name.endswith("num_batches_tracked")]
    strange = [name for name in state.keys() - whole.keys() if not _belongs_above(name, above, needed)]
    shapes = [name for name in needed & state.keys() if _form(state[name]) != _form(whole[name])]
    if missing or strange or shapes:
        raise BackboneError(
            _difference(sorted(missing), sorted(strange), [_shapes(name, state, whole) for name in sorted(shapes)]),
            where=where,
            remedy="Check that they are of this architecture, under the names of torchvision's model",
        )
    return {name: _float32(state[name]) if name in state else torch.zeros((), dtype=torch.int64) for name in needed}


def _belongs_above(name: str, above: set[str], needed: set[str]) -> bool:
    """Tell whether a name that the network lacks lies in a module of which nothing is needed, as a new head does."""
    parts = name.split(".")
    prefixes = [".".join(parts[:i]) + "." for i in range(1, len(parts))]
    return any(
        any(other.startswith(prefix) for other in above) and not any(other.startswith(prefix) for other in needed)
        for prefix in prefixes
    )


def _form(value: Tensor) -> tuple[torch.Size, bool]:
    return value.shape, value.is_floating_point()


def _difference(missing: list[str], strange: list[str], shapes: list[str]) -> str:
    parts = [
        f"{len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for what, names in (("missing", missing), ("unexpected", strange), ("of another shape or type", shapes))
        if names
    ]
    return f"the weights do not fit the network: {'; '.join(parts)}"


def _shapes(name: str, state: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> str:
    given, wanted = state[name], whole[name]
    if given.is_floating_point() != wanted.is_floating_point():
        return f"{name} {given.dtype} for {wanted.dtype}"
    return f"{name} {tuple(given.shape)} for {tuple(wanted.shape)}"


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the `weights_digest` of tensors."""
    return weights_digest({name: value.detach().cpu().contiguous().numpy() for name, value in state.items()})
