"""How alike two pictures are, pixel by pixel: 64 x 64 grey ones, mirrored, moved and magnified a little."""

from itertools import product

import numpy as np

from classify.hygiene.pixels import SIDE_PX

SHIFT_PX = 2
SHIFTS = tuple(product((0, SHIFT_PX, 2 * SHIFT_PX), repeat=2))
"""Where the part of one picture begins that is laid on the middle of the other: row, column, in pixels of 64."""

SIZE_PX = SIDE_PX - 2 * SHIFT_PX
"""Side of that middle."""

ZOOM = 1.04
"""By how much a picture is magnified that may have been cut: by two hundredths at each border."""

FLAT = 1.0
"""Standard deviation in grey levels below which a picture shows nothing: it would be like every other such one."""


def likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlate pictures (m, 64, 64) uint8 pair by pair: the best over mirroring, small shifts and cuts -> (m,) -1..1.

    Pictures that show nothing are like none: 0.
    """
    a, b = a.astype(np.float32), b.astype(np.float32)
    middle = _unit(a[:, SHIFT_PX:-SHIFT_PX, SHIFT_PX:-SHIFT_PX])
    shifted = np.max([_shifted(side, b) for side in (middle, middle[:, :, ::-1])], axis=0)
    other = _unit(b[:, SHIFT_PX:-SHIFT_PX, SHIFT_PX:-SHIFT_PX])
    cut = [
        _dot(side, one) for one, two in ((_zoomed(a), other), (_zoomed(b), middle)) for side in (two, two[:, :, ::-1])
    ]
    return np.max([shifted, *cut], axis=0)


def _shifted(middle: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Correlate the middle of one, of mean 0 and length 1, with each part of the other, the best: -> (m,)."""
    whole = whole - whole.mean(axis=(1, 2), keepdims=True)
    lengths = _lengths(whole)
    best = np.full(len(whole), -1, np.float32)
    for (y, x), length in zip(SHIFTS, lengths, strict=True):
        np.maximum(best, _dot(middle, whole[:, y : y + SIZE_PX, x : x + SIZE_PX]) / length, out=best)
    return best


def _lengths(whole: np.ndarray) -> list[np.ndarray]:
    """Return the length of each part once its mean is off, by summed-area tables; infinite where it shows nothing."""
    sums, squares = (np.pad(each.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0))) for each in _powers(whole))
    n = SIZE_PX**2
    found = []
    for y, x in SHIFTS:
        total, power = (
            table[:, y + SIZE_PX, x + SIZE_PX] - table[:, y, x + SIZE_PX] - table[:, y + SIZE_PX, x] + table[:, y, x]
            for table in (sums, squares)
        )
        variance = power / n - (total / n) ** 2
        found.append(np.where(variance > FLAT**2, np.sqrt(n * np.maximum(variance, 0)), np.inf).astype(np.float32))
    return found


def _powers(whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exact = whole.astype(np.float64)
    return exact, exact**2


def _zoomed(pictures: np.ndarray) -> np.ndarray:
    """Cut the middle out of pictures magnified by ZOOM: (m, 64, 64) -> (m, 60, 60), of mean 0 and length 1."""
    return _unit(_ENLARGE @ pictures @ _ENLARGE.T)


def _enlargement() -> np.ndarray:
    """Return the weights (60, 64) by which linear interpolation makes the middle of a magnified row of pixels."""
    at = (SIDE_PX - 1) / 2 + (np.arange(SIZE_PX) - (SIZE_PX - 1) / 2) / ZOOM
    return np.maximum(0, 1 - abs(at[:, None] - np.arange(SIDE_PX))).astype(np.float32)


_ENLARGE = _enlargement()


def _unit(pictures: np.ndarray) -> np.ndarray:
    """Take off the mean and scale to length 1: (m, h, w) float32 -> the same, 0 for what shows nothing."""
    pictures = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt(_dot(pictures, pictures))
    flat = length <= FLAT * np.sqrt(pictures[0].size)
    return pictures * np.where(flat, 0, 1 / np.maximum(length, 1))[:, None, None].astype(np.float32)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("mij,mij->m", a, b)
