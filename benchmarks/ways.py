"""Ways from files to features: by which decoder, which resizing and in which precision."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from extract.decoding.batched import decode_batch
from extract.images import RESAMPLING
from extract.recipe import Preprocessing
from extract.resample import render, render_on
from extract.views import Look, looks

BATCH = 32
GPU = torch.device("cuda", 0) if torch.cuda.is_available() else None


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def by_simplejpeg(data: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(data)


def by_torchvision(data: bytes) -> np.ndarray:
    [image] = decode_batch([torch.frombuffer(bytearray(data), dtype=torch.uint8)], torch.device("cpu"))
    assert isinstance(image, Tensor), image
    return image.numpy()


def scale_of(data: bytes, short_px: int) -> int:
    """Return by how much a JPEG may be made smaller in its transform while its shorter side stays that long."""
    shorter = min(Image.open(io.BytesIO(data)).size)
    return next((scale for scale in (8, 4, 2) if shorter // scale >= short_px), 1)


def drafted(short_px: int) -> Callable[[bytes], np.ndarray]:
    def decode(data: bytes) -> np.ndarray:
        image, scale = Image.open(io.BytesIO(data)), scale_of(data, short_px)
        image.draft("RGB", (image.width // scale, image.height // scale))
        return np.asarray(image.convert("RGB"))

    return decode


def scaled(short_px: int) -> Callable[[bytes], np.ndarray]:
    def decode(data: bytes) -> np.ndarray:
        scale = scale_of(data, short_px)
        width, height = (-(-side // scale) for side in Image.open(io.BytesIO(data)).size)
        return simplejpeg.decode_jpeg(data, min_width=width, min_height=height)

    return decode


def resized_by_pillow(image: np.ndarray, look: Look, interpolation: str, out: Tensor) -> None:
    height, width = look.size
    resized = np.array(Image.fromarray(image).resize((width, height), RESAMPLING[interpolation]))
    top, left, side = look.crop
    out.copy_(torch.from_numpy(resized[top : top + side, left : left + side]).permute(2, 0, 1))


@dataclass(frozen=True)
class Way:
    """One way from files to features."""

    name: str
    decode: Callable[[bytes], np.ndarray] = by_pillow
    resize: Callable[[np.ndarray, Look, str, Tensor], None] = render
    precision: str = "fp32"

    def pixels(self, files: Sequence[bytes], preset: Preprocessing) -> Tensor:
        """Return what the network sees, (N, 3, S, S) uint8."""
        out = torch.zeros(len(files), 3, preset.crop_size, preset.crop_size, dtype=torch.uint8)
        out = out.to(memory_format=torch.channels_last)
        for data, place in zip(files, out, strict=True):
            image = self.decode(data)
            self.resize(image, centre(*image.shape[:2], preset), preset.interpolation, place)
        return out


class OnGpu(Way):
    """Decoded and resized on a GPU."""

    def pixels(self, files: Sequence[bytes], preset: Preprocessing) -> Tensor:
        out = torch.zeros(len(files), 3, preset.crop_size, preset.crop_size, dtype=torch.uint8, device=GPU)
        for i in range(0, len(files), BATCH):
            data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files[i : i + BATCH]]
            images = [image for image in decode_batch(data, out.device) if isinstance(image, Tensor)]
            assert len(images) == len(data)
            chosen = [[centre(image.shape[0], image.shape[1], preset)] for image in images]
            render_on(images, chosen, preset.interpolation, out[i : i + BATCH])
        return out.cpu()


def centre(height: int, width: int, preset: Preprocessing) -> Look:
    chosen = looks(height, width, preset, digest=b"", views=1, seed=0)
    assert isinstance(chosen, tuple), chosen
    return chosen[0]


REFERENCE = Way("pillow + pillow", resize=resized_by_pillow)
WAYS = (
    Way("pillow + aten"),
    Way("simplejpeg + aten", by_simplejpeg),
    Way("torchvision + aten", by_torchvision),
    *([OnGpu("nvjpeg + aten's sums on the GPU")] if GPU else []),
    Way("pillow + pillow, bf16", resize=resized_by_pillow, precision="bf16"),
    Way("pillow + aten, bf16", precision="bf16"),
)
SCALED = (
    Way("pillow + aten"),
    Way("pillow draft >= 1x + aten", drafted(256)),
    Way("pillow draft >= 2x + aten", drafted(512)),
    Way("simplejpeg scaled >= 2x + aten", scaled(512)),
)
