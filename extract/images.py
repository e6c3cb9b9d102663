"""Images: from a file's bytes to the pixels that a network sees, as Pillow and the weights' own preset make them.

One documented policy, part of every key as `DECODER`: the format is told by content, not by name (JPEG, PNG, WebP, BMP,
GIF, TIFF); the first frame counts; the orientation in the EXIF data is applied; what is transparent lies on white; 16
bits are scaled to 8; CMYK and palettes become RGB as Pillow does it.
"""

import io
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from extract.spec import Failure, Preprocessing, Status

DECODER = "pillow rgb exif-upright alpha-on-white 16bit-scaled first-frame"
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

MAX_BYTES = 128 << 20
MAX_PIXELS = 128_000_000
MAX_ASPECT = 200
"""Limits of one image: bytes of the file, pixels, and long side over short side (resizing blows a thin strip up)."""

WIDE_MODES = ("I", "F")
"""Modes of 32 bits a pixel, whose range nobody knows."""

# Our own limit is checked before a pixel is decoded, and warnings of Pillow's about odd metadata concern nobody.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\..*")


def decode(data: bytes) -> Image.Image | Failure:
    """Decode one file to an upright RGB image; whatever is wrong with it becomes a Failure, never an exception."""
    if not data:
        return Failure(Status.EMPTY, "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _too_large(image.size) or _upright_rgb(image)
    except UnidentifiedImageError:
        return Failure(Status.NOT_AN_IMAGE, f"not one of {', '.join(FORMATS)}")
    except Image.DecompressionBombError:
        return Failure(Status.TOO_LARGE, f"more than {MAX_PIXELS:,} pixels")
    except MemoryError:
        raise  # it tells of this machine now and not of the image
    except Exception as error:  # decoders meet hostile bytes: they raise anything, and one file must not stop a run
        return Failure(Status.DAMAGED, f"{type(error).__name__}: {error}"[:200])


def _too_large(size: tuple[int, int]) -> Failure | None:
    width, height = size
    if width * height > MAX_PIXELS:
        return Failure(Status.TOO_LARGE, f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    if max(size) > MAX_ASPECT * max(1, min(size)):
        return Failure(Status.TOO_LARGE, f"{width} x {height} is more than {MAX_ASPECT} times as long as wide")
    return None


def _upright_rgb(image: Image.Image) -> Image.Image | Failure:
    image.load()
    if image.mode in WIDE_MODES:
        return Failure(Status.NOT_AN_IMAGE, f"pixels of mode {image.mode} have no known range: store 8 or 16 bits")
    image = _upright(image)
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the metadata is damaged, in one of many ways, and the pixels are not
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255; Pillow's own conversion clips, which turns most of the image white."""
    values = np.asarray(image).astype(np.uint32)
    scaled = ((values + 128) // 257).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        scaled[values == transparent] = 255
    return Image.fromarray(scaled)


def pixels(image: Image.Image, preset: Preprocessing) -> Tensor | Failure:
    """Resize the shorter side and crop the centre, as torchvision's preset does on Pillow images: (3, H, W) uint8."""
    width, height = image.size
    if preset.resize_size**2 * max(width, height) > MAX_PIXELS * min(width, height):
        return Failure(Status.TOO_LARGE, f"{width} x {height}, resized, is more than {MAX_PIXELS:,} pixels")
    whole: Any = image  # torchvision's annotations know tensors only
    resized = F.resize(whole, [preset.resize_size], interpolation=InterpolationMode(preset.interpolation))
    return F.pil_to_tensor(F.center_crop(resized, [preset.crop_size]))
