"""Two images that are one picture: suggested by features that are much nearer than usual, confirmed on pixels.

Features suggest as in cleanlab: nearest neighbours nearer than a share of the median distance. What then correlates
pixel by pixel is the same picture: saved at another quality, resized, mirrored, cut a little. On features alone no one
distance tells it: between CIFAR's duplicates it is several times what it is on others (Barz and Denzler 2020).
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from classify.hygiene.neighbours import nearest
from classify.hygiene.pixels import SIDE_PX, Images
from extract.progress import Progress

NEIGHBOURS = 10
RELATIVE, ABSOLUTE = 0.13, 0.05
"""A candidate is nearer than this share of the median distance to a nearest neighbour, or than this."""

SURE = 0.1
"""Where no pixels are at hand, a pair must be nearer than this share of what makes a candidate."""

MIN_NCC = 0.90
"""Normalised cross-correlation from which two pictures are one."""

SHIFT_PX = 2
SHIFTS = tuple(product((0, SHIFT_PX, 2 * SHIFT_PX), repeat=2))
"""Where the part of one picture begins that is laid on the middle of the other: row, column, in pixels of 64."""

FLAT = 1.0
"""Standard deviation in grey levels below which a picture shows nothing: it would be like every other such one."""

MAX_LOOKS = 20_000
"""Images that are decoded at most, for the nearest pairs."""

CHUNK = 512
"""Pairs of pictures that are compared at a time: 30 MB."""


@dataclass(frozen=True)
class Pair:
    """Two rows of a feature set, a < b, that are one image; `kind` is "exact" or "near".

    The distance is 1 - cos of their features, `ncc` the correlation of their pixels, None where these are not at hand.
    """

    a: int
    b: int
    kind: str
    distance: float
    ncc: float | None = None


def near_pairs(
    rows: np.ndarray, unit: np.ndarray, images: Images | None, progress: Progress
) -> tuple[list[Pair], list[str]]:
    """Find near-duplicates among rows (n,) with features of length 1 (n, D): -> pairs, and what is to be said."""
    pairs, limit = candidates(rows, unit)
    if images is None:
        said = ["near-duplicates are told by features alone, as no images are at hand: only the plainest are found"]
        return [pair for pair in pairs if pair.distance < SURE * limit], said
    pairs, said = _affordable(pairs)
    confirmed = confirm(pairs, images, progress)
    return [pair for pair in confirmed if _one_picture(pair, limit)], said + images.trouble


def candidates(rows: np.ndarray, unit: np.ndarray) -> tuple[list[Pair], float]:
    """Pair rows (n,) whose features of length 1 (n, D) are much nearer than usual: -> pairs, and how near that is."""
    distances, numbers = nearest(unit, NEIGHBOURS)
    if not distances.size:
        return [], 0.0
    limit = max(RELATIVE * float(np.median(distances[:, 0])), ABSOLUTE)
    at, rank = np.nonzero(distances < limit)
    ends = np.sort(rows[np.stack([at, numbers[at, rank]], axis=1)], axis=1)
    ends, first = np.unique(ends, axis=0, return_index=True)
    found = zip(ends.tolist(), distances[at, rank][first].tolist(), strict=True)
    return [Pair(a, b, "near", distance) for (a, b), distance in found], limit


def _affordable(pairs: list[Pair]) -> tuple[list[Pair], list[str]]:
    """Keep the nearest pairs, of no more images than may be decoded; say how many are left out."""
    seen: set[int] = set()
    kept = []
    for pair in sorted(pairs, key=lambda pair: (pair.distance, pair.a, pair.b)):
        if len(seen) + (pair.a not in seen) + (pair.b not in seen) > MAX_LOOKS:
            break
        seen.update((pair.a, pair.b))
        kept.append(pair)
    left = len(pairs) - len(kept)
    return kept, [f"{left} of {len(pairs)} pairs of much alike features were not compared: the farthest"] * bool(left)


def confirm(pairs: list[Pair], images: Images, progress: Progress) -> list[Pair]:
    """Compare the pictures of each pair: -> the pairs, with the correlation where both images are at hand."""
    rows = np.unique([(pair.a, pair.b) for pair in pairs]).astype(np.int64)
    greys, good = images.greys(rows, progress=progress)
    a, b = (np.searchsorted(rows, [getattr(pair, end) for pair in pairs]) for end in ("a", "b"))
    found = np.full(len(pairs), np.nan, np.float32)
    compared = np.flatnonzero(good[a] & good[b]) if pairs else np.array([], np.int64)
    for start in range(0, len(compared), CHUNK):
        at = compared[start : start + CHUNK]
        found[at] = likeness(greys[a[at]], greys[b[at]])
    return [pair if np.isnan(ncc) else replace(pair, ncc=float(ncc)) for pair, ncc in zip(pairs, found, strict=True)]


def _one_picture(pair: Pair, limit: float) -> bool:
    """Judge a candidate by its pixels, or more strictly by its features where an image is gone."""
    return pair.distance < SURE * limit if pair.ncc is None else pair.ncc >= MIN_NCC


def likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlate pictures (m, 64, 64) uint8 pair by pair, the best over mirroring and small shifts: -> (m,) -1..1.

    Pictures that show nothing are like none: 0.
    """
    size = SIDE_PX - 2 * SHIFT_PX
    middle = _standard(a[:, SHIFT_PX:-SHIFT_PX, SHIFT_PX:-SHIFT_PX])
    best = np.full(len(a), -1, np.float32)
    for side in (b, b[:, :, ::-1]):
        for y, x in SHIFTS:
            part = _standard(side[:, y : y + size, x : x + size])
            np.maximum(best, np.einsum("ij,ij->i", middle, part), out=best)
    return best


def _standard(pictures: np.ndarray) -> np.ndarray:
    """Flatten pictures, take off the mean and scale to length 1: (m, h, w) uint8 -> (m, h * w) float32, 0 if flat."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.sqrt(np.einsum("ij,ij->i", flat, flat))
    scale = np.where(length > FLAT * np.sqrt(flat.shape[1]), 1 / np.maximum(length, 1), 0)
    return flat * scale[:, None].astype(np.float32)
