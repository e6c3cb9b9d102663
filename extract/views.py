"""Views: which parts of an image the network looks at. Geometry only, without torch.

The first view is the centre, as the weights' own preset crops it; the second one its mirror image; all others are
random resized crops (Szegedy et al. 2015, https://arxiv.org/abs/1409.4842), drawn from the content of the image, the
seed and the number of the view, so that a row depends on nothing else. Looks at training images are drawn likewise.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from extract.images import MAX_PIXELS
from extract.recipe import Preprocessing
from extract.record import Failure, Status

SCALE = (0.25, 1.0)
"""Share of the image's area in a random crop. The 0.08 that training takes would often show no object: a network that
is trained on learns to live with that, cached features do not."""

RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop."""

TRIES = 10
"""How often a crop that does not fit into the image is drawn again."""

BITS = 48
"""Of each random number, so that five of them fit into one SHA-256."""

Coins = tuple[float, ...]

Augment = tuple[bool, bool, tuple[float, float]]
"""What is drawn of a training image: whether a resized crop, whether a mirror image, and the shares of the area."""


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
    height: int, width: int, preset: Preprocessing, *, digest: bytes, views: int, seed: int, flips: bool = True
) -> tuple[Look, ...] | Failure:
    """Return the views of an image of that size; `digest` is the SHA-256 of its file.

    Without `flips` none is mirrored, and the random crops begin one earlier. Resized, an image may not exceed
    MAX_PIXELS.
    """
    if refused := _too_large(height, width, preset):
        return refused
    centre = _centre(height, width, preset)
    fixed = (centre, replace(centre, flip=True))[: drawn_from(flips=flips)]
    numbers = range(len(fixed), views)
    drawn = (_random(height, width, preset.crop_size, SCALE, _coins(digest, seed, view)) for view in numbers)
    return (*fixed, *(look if flips else replace(look, flip=False) for look in drawn))[:views]


def training_look(
    height: int, width: int, preset: Preprocessing, *, digest: bytes, seed: int, draw: int, augment: Augment
) -> Look | Failure:
    """Return the look number `draw`, 0 or more, at a training image of that size, whose file has that SHA-256.

    What is not drawn is as in the centre view: its crop, and not mirrored. It depends on nothing but the arguments; a
    further view is the draw of its own number from a crop of SCALE and a coin.
    """
    if refused := _too_large(height, width, preset):
        return refused
    crop, flip, scale = augment
    look = _random(height, width, preset.crop_size, scale, _coins(digest, seed, draw))
    return replace(look if crop else _centre(height, width, preset), flip=flip and look.flip)


def drawn_from(*, flips: bool) -> int:
    """Return the number of the first view that is drawn at random."""
    return 2 if flips else 1


def _too_large(height: int, width: int, preset: Preprocessing) -> Failure | None:
    if preset.resize_size**2 * max(width, height) > MAX_PIXELS * min(width, height):
        return Failure(Status.TOO_LARGE, f"{width} x {height}, resized, is more than {MAX_PIXELS:,} pixels")
    return None


def _centre(height: int, width: int, preset: Preprocessing) -> Look:
    """Return the square in the middle: the longer side is rounded down, and where it begins to even."""
    short, side = preset.resize_size, preset.crop_size
    size = (int(short * height / width), short) if width <= height else (short, int(short * width / height))
    top, left = (round((length - side) / 2) for length in size)
    return Look((0, 0, height, width), size, (top, left, side))


def _random(height: int, width: int, side: int, scale: tuple[float, float], coins: Iterator[Coins]) -> Look:
    """Return a resized crop of `scale` of the area, mirrored in half of the cases."""
    region, flip = (0, 0, height, width), False
    for area, ratio, down, across, coin in coins:
        flip = coin < 0.5
        if found := _drawn(height, width, scale[0] + area * (scale[1] - scale[0]), ratio):
            high, wide = found
            region = (int(down * (height - high + 1)), int(across * (width - wide + 1)), high, wide)
            break
    else:
        region = _most(height, width)
    return Look(region, (side, side), (0, 0, side), flip)


def _drawn(height: int, width: int, share: float, ratio: float) -> tuple[int, int] | None:
    """Turn a share of the area and a number in [0, 1) into the height and width of a crop; None if it does not fit."""
    pixels = height * width * share
    shape = RATIO[0] * math.exp(ratio * math.log(RATIO[1] / RATIO[0]))
    high, wide = round(math.sqrt(pixels / shape)), round(math.sqrt(pixels * shape))
    return (high, wide) if 0 < high <= height and 0 < wide <= width else None


def _most(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the largest region in the middle whose ratio is within RATIO."""
    high = max(1, min(height, round(width / RATIO[0])))
    wide = max(1, min(width, round(height * RATIO[1])))
    return (height - high) // 2, (width - wide) // 2, high, wide


def _coins(digest: bytes, seed: int, number: int) -> Iterator[Coins]:
    """Yield five numbers in [0, 1) for each of TRIES, which depend on nothing but the arguments."""
    size = BITS // 8
    for attempt in range(TRIES):
        bits = hashlib.sha256(digest + f"{seed} {number} {attempt}".encode()).digest()
        yield tuple(int.from_bytes(bits[i * size : (i + 1) * size], "big") / 2**BITS for i in range(5))
