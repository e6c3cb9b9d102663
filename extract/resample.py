"""Resampling: from a decoded image to the pixels that the network sees, bitwise the same on every device.

Bilinear and bicubic are ATen's antialiased resizing of uint8, as torchvision's v2 transforms do it: a horizontal pass,
rounded to uint8, then a vertical one, with weights of 16 bits. On a CPU its own kernels do it in a third of Pillow's
time (they differ by at most 2 grey levels, on one value in 700); on any other device the same sums of integers are
made here, since ATen resizes only floats there. Everything else is left to Pillow.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extract.errors import OptionError
from extract.images import RESAMPLING
from extract.views import Look

PORTION_PIXELS = 1 << 26
"""Pixels of images that are resized together on a device; a larger image is alone."""

PORTION_PRODUCTS = 1 << 26
"""Products (int32) that are held at a time on a device: 256 MiB."""

MAX_PRECISION = 22
"""Bits behind the point of a weight at most; ATen's."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter: ATen's kernel, how far it reaches in pixels, and its value at distances >= 0 (float64, any shape)."""

    kernel: Callable[..., Tensor]
    reach: float
    value: Callable[[np.ndarray], np.ndarray]


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.where(x < 1, 1 - x, 0.0)


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    """Keys (1981), term by term as ATen evaluates it."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


FILTERS = {
    "bilinear": Filter(torch.ops.aten._upsample_bilinear2d_aa, 1.0, _triangle),
    "bicubic": Filter(torch.ops.aten._upsample_bicubic2d_aa, 2.0, _cubic),
}
ON_A_DEVICE = tuple(FILTERS)
"""The interpolations that `render_on` knows."""


class _Writable:
    """Shows an array that may not be written as one that may: torch warns of the former, and we only read."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def render(image: np.ndarray | Tensor, look: Look, interpolation: str, out: Tensor) -> None:
    """Resize, crop and mirror one image on the CPU: (H, W, 3) uint8 -> `out` (3, S, S) uint8, best channels-last."""
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.asarray(_Writable(np.ascontiguousarray(image))))
    top, left, height, width = look.region
    region = image[top : top + height, left : left + width]
    known = FILTERS.get(interpolation)
    resized = _by_aten(region, look, known) if known else _by_pillow(region, look, interpolation)
    top, left, side = look.crop
    shown = resized[top : top + side, left : left + side]
    out.permute(1, 2, 0).copy_(shown.flip(1) if look.flip else shown)


def _by_pillow(region: Tensor, look: Look, interpolation: str) -> Tensor:
    height, width = look.size
    resized = Image.fromarray(region.numpy()).resize((width, height), RESAMPLING[interpolation])
    return torch.from_numpy(np.array(resized))


def _by_aten(region: Tensor, look: Look, known: Filter) -> Tensor:
    """Resize (H, W, 3) as far down and right as the crop reaches; rows that no output needs are spared both passes."""
    top, left, side = look.crop
    height, width, _ = region.shape
    rows, n_rows, vertical = _extent(height, look.size[0], top + side, known.reach)
    _, n_columns, horizontal = _extent(width, look.size[1], left + side, known.reach)
    source = region[:rows].permute(2, 0, 1)[None]
    return known.kernel(source, [n_rows, n_columns], False, vertical, horizontal)[0].permute(1, 2, 0)


@lru_cache(maxsize=1 << 12)
def _extent(length: int, size: int, end: int, reach: float) -> tuple[int, int, float | None]:
    """Return what ATen is to be told of an axis, of whose `size` outputs those before `end` are needed.

    These are its inputs and its outputs, and their ratio where that does not follow from both. The whole axis is
    resized where no ratio will do (ATen takes the reciprocal, which is to be the very step of the whole), and where
    ATen would take it for one that keeps its length.
    """
    step = length / size
    ratio = next((ratio for ratio in _around(size / length) if 1 / ratio == step), None)
    needed = min(length, int(step * (end - 0.5) + reach * max(step, 1.0) + 0.5))
    if length == size or ratio is None or end in (size, length, needed):
        return length, size, None
    return needed, end, ratio


def _around(number: float) -> tuple[float, float, float]:
    return number, math.nextafter(number, 0), math.nextafter(number, math.inf)


def render_on(images: Sequence[Tensor], looks: Sequence[Sequence[Look]], interpolation: str, out: Tensor) -> None:
    """Resize, crop and mirror images on their device, bitwise as `render` does it.

    N images (H, W, 3) uint8 of any sizes, V looks at each -> `out` (N V, 3, S, S) uint8, image by image. Raises
    OptionError for an interpolation that is not in ON_A_DEVICE.
    """
    if interpolation not in FILTERS:
        remedy = f"Resize on the CPU, or take one of {', '.join(ON_A_DEVICE)}"
        raise OptionError(f"no {interpolation!r} interpolation on a device", remedy=remedy)
    done = 0
    for portion in _portions(images, looks):
        rendered = _rendered(*portion, interpolation)
        out[done : done + len(rendered)].copy_(rendered)
        done += len(rendered)


Portion = tuple[list[Tensor], list[Sequence[Look]]]


def _portions(images: Sequence[Tensor], looks: Sequence[Sequence[Look]]) -> Iterator[Portion]:
    """Yield images with their looks, in order, as many as may be resized together."""
    pixels, taken = 0, ([], [])
    for image, chosen in zip(images, looks, strict=True):
        size = image.shape[0] * image.shape[1]
        if taken[0] and pixels + size > PORTION_PIXELS:
            yield taken
            pixels, taken = 0, ([], [])
        taken[0].append(image)
        taken[1].append(chosen)
        pixels += size
    if taken[0]:
        yield taken


def _rendered(images: Sequence[Tensor], looks: Sequence[Sequence[Look]], interpolation: str) -> Tensor:
    """Resize images of any sizes, in few launches whatever their number -> (N V, 3, S, S) uint8.

    All images are one table of pixels, of which the horizontal pass makes a table of lines (L, S, 3), and the vertical
    pass of these the images.
    """
    plan = _plan([(image.shape[0], image.shape[1]) for image in images], looks, interpolation)
    side = plan.across.first.shape[1]
    arrays = (plan.line, plan.owner, plan.across.first, plan.down.first)
    line, owner, across, down = (_sent(array, images[0].device) for array in arrays)
    output = torch.arange(down.numel(), dtype=torch.int32, device=down.device)
    column = owner[:, None] * side + output[:side]
    pixels = torch.cat([image.reshape(-1, 3) for image in images])
    lines = _weigh(pixels, (line[:, None] + across.index_select(0, owner)).view(-1), column.view(-1), plan.across)
    made = _weigh(lines.view(-1, side * 3), down.view(-1), output, plan.down)
    return made.view(-1, side, side, 3).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class _Taps:
    """How outputs of an axis come from its inputs, or those of many axes.

    Output i is the sum of the inputs from `first[i]` on, each times its weight in `weights[i]` (K int32), over two to
    the `precision[i]` (int32), rounded and clipped.
    """

    first: np.ndarray
    weights: np.ndarray
    precision: np.ndarray


@dataclass(frozen=True, slots=True)
class _Plan:
    """What becomes of a table of pixels: where each line begins in it and whose it is, (L,) both.

    Taps `across` (B, S) count pixels from the beginning of a line, and taps `down` (B, S) count lines.
    """

    line: np.ndarray
    owner: np.ndarray
    across: _Taps
    down: _Taps


def _plan(sizes: Sequence[tuple[int, int]], looks: Sequence[Sequence[Look]], interpolation: str) -> _Plan:
    """Lay out the work for images of these sizes (height, width)."""
    lines, across, down = [], [], []
    before = pixels = 0
    for (height, width), chosen in zip(sizes, looks, strict=True):
        for look in chosen:
            horizontal, vertical = _axes(look, interpolation)
            used = np.arange(vertical.first[0], vertical.first[-1] + vertical.weights.shape[1])
            lines.append(pixels + (look.region[0] + used) * width + look.region[1])
            across.append(horizontal)
            down.append(replace(vertical, first=vertical.first - used[0] + before))
            before += len(used)
        pixels += height * width
    owner = np.repeat(np.arange(len(lines)), [len(each) for each in lines])
    return _Plan(np.concatenate(lines), owner, _stacked(across), _stacked(down))


def _axes(look: Look, interpolation: str) -> tuple[_Taps, _Taps]:
    """Return the taps of a look across and down."""
    top, left, side = look.crop
    across = _taps(look.region[3], look.size[1], left, side, interpolation)
    if look.flip:
        across = _Taps(across.first[::-1], across.weights[::-1], across.precision)
    return across, _taps(look.region[2], look.size[0], top, side, interpolation)


def _stacked(taps: Sequence[_Taps]) -> _Taps:
    """Put axes of S outputs together: weights (B, S, K), where shorter ones end in zeros."""
    weights = np.zeros((len(taps), len(taps[0].first), max(each.weights.shape[1] for each in taps)), np.int32)
    for i, each in enumerate(taps):
        weights[i, :, : each.weights.shape[1]] = each.weights
    return _Taps(np.stack([each.first for each in taps]), weights, np.stack([each.precision for each in taps]))


@lru_cache(maxsize=1 << 10)
def _taps(length: int, size: int, begin: int, side: int, interpolation: str) -> _Taps:
    """Compute ATen's weights of `side` outputs from `begin` on, where an axis of some length is resized to a size.

    In float64, operation by operation in its order, so that they round to the same integers.
    """
    known = FILTERS[interpolation]
    step = length / size
    reach = known.reach * max(step, 1.0)
    centre = step * (np.arange(size) + 0.5)
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int64), length) - first
    k = np.arange(count.max())
    distance = np.abs((k + first[:, None] - centre[:, None] + 0.5) * (1 / step if step >= 1 else 1.0))
    values = np.where(k < count[:, None], known.value(distance), 0.0)
    values /= values.cumsum(1)[:, -1:]  # one after the other, as a loop would; `sum` goes in pairs
    precision = _precision(values.max())
    weights = np.trunc(values * (1 << precision) + np.copysign(0.5, values)).astype(np.int32)
    shown = slice(begin, begin + side)
    return _Taps(first[shown], weights[shown], np.full(side, precision, np.int32))


def _precision(largest: float) -> int:
    """Return how many bits behind the point fit into 16 bits with the largest weight."""
    fits = (bits for bits in range(MAX_PRECISION) if int(0.5 + largest * (1 << (bits + 1))) >= 1 << 15)
    return next(fits, MAX_PRECISION)


def _sent(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy integers to a device, without a wait for the work there; 32 bits are enough to count pixels."""
    return torch.from_numpy(array.astype(np.int32, copy=False)).to(device, non_blocking=True)


def _weigh(table: Tensor, first: Tensor, row: Tensor, taps: _Taps) -> Tensor:
    """Weigh rows of a table: (P, M) uint8 -> (L, M) uint8; output l begins at row `first[l]`, by the taps `row[l]`.

    Sums of integers, which come out the same in whatever order a device adds them.
    """
    n_taps = taps.weights.shape[-1]
    weights = _sent(taps.weights, table.device).view(-1, n_taps)
    precision = _sent(taps.precision, table.device).view(-1, 1)
    reach = torch.arange(n_taps, dtype=torch.int32, device=table.device)
    made = torch.empty((len(first), table.shape[1]), dtype=torch.uint8, device=table.device)
    at_once = max(1, PORTION_PRODUCTS // (n_taps * table.shape[1]))
    for part, begin, chosen in zip(made.split(at_once), first.split(at_once), row.split(at_once), strict=True):
        # Taps that end in zeros may point behind the table.
        at = (begin[:, None] + reach).clamp_(max=len(table) - 1)
        taken = table.index_select(0, at.view(-1)).view(*at.shape, -1)
        total = (taken * weights.index_select(0, chosen)[:, :, None]).sum(1, dtype=torch.int32)
        bits = precision.index_select(0, chosen)
        part.copy_((total + (1 << (bits - 1)) >> bits).clamp_(0, 255))
    return made
