"""Devices: which there are, and which precision each computes in."""

import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from extract.errors import OptionError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ALL_GPUS = "cuda:all"
TF32_SINCE = (8, 0)
"""Compute capability of the first GPUs with TF32 (Ampere)."""


def device_names(text: str) -> list[str]:
    """Spell out `auto`, `cuda:all`, or names separated by commas: `cuda:0,cuda:1` -> [`cuda:0`, `cuda:1`]."""
    if text == "auto":
        return ["cuda" if torch.cuda.is_available() else "cpu"]
    if text == ALL_GPUS:
        if not torch.cuda.device_count():
            raise _no_device(text)
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [name.strip() for name in text.split(",")]


def pick_device(name: str) -> torch.device:
    """Return the device of one name, `auto` included; raises OptionError for one that computes nothing here."""
    names = device_names(name)
    if len(names) != 1:
        raise OptionError(f"{name!r} are several devices", remedy="Take one of them")
    [name] = names
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise _no_device(name) from error
    return device


def _no_device(name: str) -> OptionError:
    return OptionError(f"no device {name!r} here", remedy="Take --device cpu")


def computes_bf16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bf16: an emulation is slower than fp32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine().lower() in ("arm64", "aarch64"):
        return _onednn_computes_bf16()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _onednn_computes_bf16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def resolve_precision(asked: str, device: torch.device) -> str:
    """Resolve `auto`: fp32 on a CPU, which every machine computes alike, and bf16 on a GPU that has it.

    Raises OptionError for a precision that the device computes slower than fp32.
    """
    if asked == "auto":
        return "bf16" if device.type == "cuda" and computes_bf16(device) else "fp32"
    if asked == "fp16" and device.type == "cpu":
        raise OptionError("a CPU computes fp16 very slowly", remedy="Take --precision bf16 or fp32")
    if asked == "bf16" and not computes_bf16(device):
        raise OptionError(f"this {device.type} does not compute bf16, only emulates it", remedy="Take --precision fp32")
    return asked


def check_tf32(precision: str, device: torch.device) -> None:
    """Raise OptionError where TF32 can change nothing."""
    if precision != "fp32" or device.type != "cuda" or torch.cuda.get_device_capability(device) < TF32_SINCE:
        said = f"TF32 is a way to compute fp32 on a GPU, and this is {precision} on a {device.type}"
        raise OptionError(said, remedy="Leave --tf32 out, or take --precision fp32 --device cuda")


def set_tf32(allowed: bool) -> None:
    """Let fp32 on a GPU be rounded to TF32, or not, for the whole process.

    The setters of old, since they alone keep the old and the new state of PyTorch together: whoever reads the one
    after only the other was set (the compiler does) meets an error. Some versions warn of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def full_fp32() -> Iterator[None]:
    """Turn TF32 off inside, and afterwards back to what it was."""
    before = torch.backends.cudnn.conv.fp32_precision == "tf32"  # pyright: ignore[reportAttributeAccessIssue]
    set_tf32(False)
    try:
        yield
    finally:
        set_tf32(before)
