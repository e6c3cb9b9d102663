"""Images: from a file's bytes to upright RGB pixels, as Pillow makes them.

One documented policy, part of every key as one of `DECODERS`: the format is told by content, not by name (JPEG, PNG,
WebP, BMP, GIF, TIFF); the first frame counts; the orientation in the EXIF data is applied; what is transparent lies on
white; 16 bits are scaled to 8; CMYK and palettes become RGB as Pillow does it. Without torch, so that a process that
decodes is started in a moment.
"""

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from extract.record import Failure, Status

try:
    import simplejpeg
except ImportError:  # Pillow does it too, bit by bit the same, and takes a third longer
    simplejpeg = None

EXACT = "pillow rgb exif-upright alpha-on-white 16bit-scaled first-frame; aten uint8 antialiased"
DECODERS = {
    "exact": EXACT,
    "scaled": f"{EXACT}; jpeg scaled in the transform to no less than twice the shorter side",
    "gpu": f"{EXACT}; plain jpeg by nvjpeg",
}
"""What is done with an image's bytes, under the name that a user gives it."""

JPEGS = ("JPEG", "MPO")
SCALES = (8, 4, 2)
"""By how much a JPEG can be made smaller while it is decoded."""

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

ORIENTATION = 0x0112
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""The EXIF tag of that name, and what its values ask for."""

WIDE_MODES = ("I", "F")
"""Modes of 32 bits a pixel, whose range nobody knows."""

# Our own limit is checked before a pixel is decoded, and warnings of Pillow's about odd metadata concern nobody.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\..*")


Room = Callable[[int], Any]
"""Gives a writable buffer of so many bytes."""


def decode(data: bytes, *, short_px: int | None = None, room: Room = bytearray) -> np.ndarray | Failure:
    """Decode one file to upright RGB, (H, W, 3) uint8; whatever is wrong with it becomes a Failure, never an exception.

    With `short_px` a JPEG may come out smaller, its shorter side no less than that. The pixels may lie in what `room`
    gave.
    """
    if not data:
        return Failure(Status.EMPTY, "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return too_large(image.size) or _pixels(image, data, short_px, room)
    except UnidentifiedImageError:
        return Failure(Status.NOT_AN_IMAGE, f"not one of {', '.join(FORMATS)}")
    except Image.DecompressionBombError:
        return Failure(Status.TOO_LARGE, f"more than {MAX_PIXELS:,} pixels")
    except MemoryError:
        raise  # whoever limits the memory knows what it means
    except Exception as error:  # decoders meet hostile bytes: they raise anything, and one file must not stop a run
        return Failure(Status.DAMAGED, f"{type(error).__name__}: {error}"[:200])


def too_large(size: tuple[int, int]) -> Failure | None:
    """Refuse a size (width, height) before a pixel of it is decoded; None for one that will do."""
    width, height = size
    if width * height > MAX_PIXELS:
        return Failure(Status.TOO_LARGE, f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    if max(size) > MAX_ASPECT * max(1, min(size)):
        return Failure(Status.TOO_LARGE, f"{width} x {height} is more than {MAX_ASPECT} times as long as wide")
    return None


def _pixels(image: Image.Image, data: bytes, short_px: int | None, room: Room) -> np.ndarray | Failure:
    scale = _scale(image, short_px)
    if image.format in JPEGS and image.mode in ("RGB", "L") and (found := _turbo(image, data, scale, room)) is not None:
        return found
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))
    upright = upright_rgb(image)
    return upright if isinstance(upright, Failure) else np.asarray(upright)


def _scale(image: Image.Image, short_px: int | None) -> int:
    if short_px is None or image.format not in JPEGS:
        return 1
    return next((scale for scale in SCALES if min(image.size) // scale >= short_px), 1)


def _turbo(image: Image.Image, data: bytes, scale: int, room: Room) -> np.ndarray | None:
    """Decode a JPEG whose header Pillow has read; None where Pillow is to decide what becomes of it."""
    if simplejpeg is None:
        return None
    width, height = (-(-side // scale) for side in image.size)
    try:
        found = simplejpeg.decode_jpeg(data, min_width=width, min_height=height, buffer=room(3 * width * height))
    except ValueError:  # also for what Pillow takes no offence at
        return None
    return _turned(found, image) if found.shape == (height, width, 3) else None


def _turned(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    try:
        # It may be of any type: the text 6 turns nothing, as in Pillow.
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # the metadata is damaged, in one of many ways, and the pixels are not
        return pixels
    return turn(pixels) if turn else pixels


def upright_rgb(image: Image.Image) -> Image.Image | Failure:
    """Return an image of Pillow's as the policy has it; raises whatever Pillow does where it is damaged."""
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
