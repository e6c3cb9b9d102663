"""Images: from a file's bytes to the pixels that a network sees, as Pillow and the weights' own preset make them.

One documented policy, part of every key as `DECODER`: the format is told by content, not by name (JPEG, PNG, WebP, BMP,
GIF, TIFF); the first frame counts; the orientation in the EXIF data is applied; what is transparent lies on white; 16
bits are scaled to 8; CMYK and palettes become RGB as Pillow does it. Without torch, so that a process that decodes is
started in a moment.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from extract.spec import Failure, Preprocessing, Status

DECODER = "pillow rgb exif-upright alpha-on-white 16bit-scaled first-frame"
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

MAX_BYTES = 128 << 20
MAX_PIXELS = 128_000_000
MAX_ASPECT = 200
MAX_SECONDS = 30
"""Limits of one image: bytes of the file, pixels, long side over short side (resizing blows a thin strip up), and
seconds of CPU time, which the process that decodes sets itself. One of MAX_PIXELS took 6 s (JPEG) to 14 s (WebP)."""

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "hamming": Image.Resampling.HAMMING,
    "box": Image.Resampling.BOX,
    "nearest-exact": Image.Resampling.NEAREST,
}
"""torchvision's names of interpolations, and what it asks of Pillow under each."""

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
        raise  # whoever limits the memory knows what it means
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


def pixels(image: Image.Image, preset: Preprocessing) -> np.ndarray | Failure:
    """Resize the shorter side and crop the centre, bitwise as torchvision's preset does it: (3, H, W) uint8."""
    width, height = image.size
    if preset.resize_size**2 * max(width, height) > MAX_PIXELS * min(width, height):
        return Failure(Status.TOO_LARGE, f"{width} x {height}, resized, is more than {MAX_PIXELS:,} pixels")
    resized = image.resize(_resized(image.size, preset.resize_size), RESAMPLING[preset.interpolation])
    cropped = resized.crop(_centre(resized.size, preset.crop_size))
    return np.ascontiguousarray(np.asarray(cropped).transpose(2, 0, 1))


def _resized(size: tuple[int, int], short: int) -> tuple[int, int]:
    """Return the size whose shorter side is `short`; the longer one is rounded down."""
    width, height = size
    return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)


def _centre(size: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    """Return the square in the middle as left, top, right, bottom; halves are rounded to even."""
    left, top = (round((length - side) / 2) for length in size)
    return left, top, left + side, top + side
