"""Decoding many JPEG files at once on a device, behind one function: torchvision's nvJPEG, or TorchCodec's.

Only files that are `eligible` (see `extract.decoding.jpeg`) may come here: a library parses them in our own process.
"""

import io
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module

import torch
from PIL import Image
from torch import Tensor

from extract.errors import DecoderError
from extract.record import Failure, Status

RGB = 3
"""torchvision's number for that mode."""

PLACE = re.compile(r"^\w+, \S+:\d+, ")
"""Where in torch's source an error arose, in front of its message."""

Decode = Callable[[Sequence[Tensor], torch.device], list[Tensor]]
"""From files (n,) uint8 on the CPU to images (3, H, W) uint8 on a device."""


def decode_batch(files: Sequence[Tensor], device: torch.device) -> list[Tensor | Failure]:
    """Decode JPEG files (n,) uint8 on the CPU to RGB images (H, W, 3) uint8 on a device, or say why it cannot be done.

    If the decoder refuses the batch, each file goes alone, so that a damaged one costs no other. Raises DecoderError
    where there is no decoder, and whatever a device raises that has no memory left or does not work.
    """
    if not files:
        return []
    decode = _decoder()
    if device.type == "cuda":
        # The decoder writes from a stream of its own to memory that this stream may just have given back.
        torch.cuda.current_stream(device).synchronize()
    try:
        images = decode(files, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return [_alone(file, device, decode) for file in files]
    return [image.permute(1, 2, 0) for image in images]


def _alone(file: Tensor, device: torch.device, decode: Decode) -> Tensor | Failure:
    try:
        [image] = decode([file], device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        _prove(decode, device)
        return Failure(Status.DAMAGED, PLACE.sub("", str(error).partition("\n")[0])[:200])
    return image.permute(1, 2, 0)


def _prove(decode: Decode, device: torch.device) -> None:
    """Decode what is surely an image: if that fails too, no file is to blame."""
    try:
        decode([_sound()], device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise DecoderError(f"{device} decodes no JPEG files ({error})", remedy="Take --decoder exact") from error


@cache
def _sound() -> Tensor:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG")
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


@cache
def _decoder() -> Decode:
    """Return torchvision's decoder, or TorchCodec's where torchvision has none any more."""
    import_module("torchvision.io")  # makes its operators known
    if hasattr(torch.ops.image, "decode_jpeg") and hasattr(torch.ops.image, "decode_jpegs_cuda"):
        return _by_torchvision
    try:
        decode_jpeg = import_module("torchcodec.decoders").decode_jpeg
    except (ImportError, AttributeError, RuntimeError) as error:
        remedy = "Install one that does: pip install 'torchcodec>=0.16'; or take --decoder exact"
        raise DecoderError(f"nothing decodes JPEG files on a device ({error})", remedy=remedy) from error
    return lambda files, device: decode_jpeg(list(files), device=device)


def _by_torchvision(files: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Call torchvision's operators, not its function: that warns of its end, and warnings are for all threads."""
    if device.type == "cuda":
        return torch.ops.image.decode_jpegs_cuda(list(files), RGB, device)
    return [torch.ops.image.decode_jpeg(file, RGB, False) for file in files]
