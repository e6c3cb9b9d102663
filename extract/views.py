"""Views: which parts of an image the network looks at. Geometry only, without torch.

The first view is the centre, as the weights' own preset crops it; the second one its mirror image; all others are
random resized crops (Szegedy et al. 2015, https://arxiv.org/abs/1409.4842), drawn from the content of the image, the
seed and the number of the view, so that a row depends on nothing else.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from extract.images import MAX_PIXELS
from extract.spec import Failure, Preprocessing, Status

SCALE = (0.25, 1.0)
"""Share of the image's area in a random crop. The 0.08 that training takes would often show no object: a network that
is trained on learns to live with that, cached features do not."""

RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop."""

DRAWN_FROM = 2
"""The number of the first view that is drawn at random."""

TRIES = 10
"""How often a crop that does not fit into the image is drawn again."""

BITS = 48
"""Of each random number, so that five of them fit into one SHA-256."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at an upright image, in pixels: `region` (top, left, height, width) of it is resized to `size` (height,
    width), of which `crop` (top, left, side) is shown, mirrored left to right if `flip`.
    """

    region: tuple[int, int, int, int]
    size: tuple[int, int]
    crop: tuple[int, int, int]
    flip: bool = False


def looks(
    height: int, width: int, preset: Preprocessing, *, digest: bytes, views: int, seed: int
) -> tuple[Look, ...] | Failure:
    """Return the views of an image of that size; `digest` is the SHA-256 of its file.

    Resized, an image may not exceed MAX_PIXELS.
    """
    if preset.resize_size**2 * max(width, height) > MAX_PIXELS * min(width, height):
        return Failure(Status.TOO_LARGE, f"{width} x {height}, resized, is more than {MAX_PIXELS:,} pixels")
    centre = _centre(height, width, preset)
    mirrored = replace(centre, flip=True)
    drawn = (_random(height, width, preset.crop_size, digest, seed, view) for view in range(DRAWN_FROM, views))
    return (centre, mirrored, *drawn)[:views]


def _centre(height: int, width: int, preset: Preprocessing) -> Look:
    """Return the square in the middle: the longer side is rounded down, and where it begins to even."""
    short, side = preset.resize_size, preset.crop_size
    size = (int(short * height / width), short) if width <= height else (short, int(short * width / height))
    top, left = (round((length - side) / 2) for length in size)
    return Look((0, 0, height, width), size, (top, left, side))


def _random(height: int, width: int, side: int, digest: bytes, seed: int, view: int) -> Look:
    region, flip = (0, 0, height, width), False
    for attempt in range(TRIES):
        area, ratio, down, across, coin = _uniform(digest, seed, view, attempt)
        flip = coin < 0.5
        if found := _drawn(height, width, area, ratio):
            high, wide = found
            region = (int(down * (height - high + 1)), int(across * (width - wide + 1)), high, wide)
            break
    else:
        region = _most(height, width)
    return Look(region, (side, side), (0, 0, side), flip)


def _drawn(height: int, width: int, area: float, ratio: float) -> tuple[int, int] | None:
    """Turn two numbers in [0, 1) into the height and width of a crop; None for one that does not fit."""
    pixels = height * width * (SCALE[0] + area * (SCALE[1] - SCALE[0]))
    shape = RATIO[0] * math.exp(ratio * math.log(RATIO[1] / RATIO[0]))
    high, wide = round(math.sqrt(pixels / shape)), round(math.sqrt(pixels * shape))
    return (high, wide) if 0 < high <= height and 0 < wide <= width else None


def _most(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the largest region in the middle whose ratio is within RATIO."""
    high = max(1, min(height, round(width / RATIO[0])))
    wide = max(1, min(width, round(height * RATIO[1])))
    return (height - high) // 2, (width - wide) // 2, high, wide


def _uniform(digest: bytes, seed: int, view: int, attempt: int) -> Iterator[float]:
    """Yield five numbers in [0, 1) that depend on nothing but the arguments."""
    bits = hashlib.sha256(digest + f"{seed} {view} {attempt}".encode()).digest()
    size = BITS // 8
    for i in range(5):
        yield int.from_bytes(bits[i * size : (i + 1) * size], "big") / 2**BITS
