"""Two images that are one picture: suggested by features that are much nearer than usual, confirmed on pixels.

How near is near differs from network to network and from class to class, so it is a share of the distance to the tenth
neighbour. Measured on 160 photographs with 40 planted variants (squeezenet1_1): all found and no other, where
cleanlab's rule (0.13 of the median distance to the nearest neighbour, or 0.05) missed 6; on scikit-learn's digits that
rule joins 1,181 of 1,797 images to one, and this one no more than some twenty.
"""

from dataclasses import dataclass, replace

import numpy as np

from classify.hygiene.likeness import likeness
from classify.hygiene.neighbours import nearest
from classify.hygiene.pixels import Images
from extract.progress import Progress

NEIGHBOURS = 10
NEAR = 0.33
"""A candidate is nearer than this share of the distance to a tenth neighbour: of its own two, or of the usual one."""

SURE = 0.1
"""The share of its own two below which it is a pair without looking at pixels, where there are none."""

ALIKE, EQUAL = 0.90, 0.97
"""Correlation of pixels from which a pair that is nearer than its own neighbours is one picture; and any other."""

MAX_LOOKS = 20_000
"""Images that are decoded at most, for the nearest pairs."""

CHUNK = 256
"""Pairs of pictures that are compared at a time: some 40 MB."""


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


@dataclass(frozen=True)
class Candidates:
    """Pairs that may be one picture: `ends` (m, 2) rows, a < b, in order, and their `distance` (m,).

    `share` (m,) is the distance over that to the tenth neighbour of a or of b, the lesser.
    """

    ends: np.ndarray
    distance: np.ndarray
    share: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def only(self, which: np.ndarray) -> "Candidates":
        """Choose some, by a mask or by places."""
        return replace(self, ends=self.ends[which], distance=self.distance[which], share=self.share[which])

    def pairs(self, ncc: np.ndarray) -> list[Pair]:
        """List them, with what their pixels say: (m,), NaN for nothing."""
        rows = zip(self.ends.tolist(), self.distance.tolist(), ncc.tolist(), strict=True)
        return [Pair(a, b, "near", distance, None if np.isnan(said) else said) for (a, b), distance, said in rows]


def near_pairs(
    rows: np.ndarray, unit: np.ndarray, images: Images | None, progress: Progress, device: str = "cpu"
) -> tuple[list[Pair], list[str]]:
    """Find near-duplicates among rows (n,) with features of length 1 (n, D): -> pairs, and what is to be said."""
    found = candidates(rows, unit, device)
    if images is None:
        plain = found.only(found.share < SURE)
        said = ["near-duplicates are told by features alone, as no images are at hand: only the plainest are found"]
        return plain.pairs(np.full(len(plain), np.nan)), said
    found, said = _affordable(found)
    ncc = compare(found.ends, images, progress)
    alike = (ncc >= EQUAL) | ((ncc >= ALIKE) & (found.share < NEAR)) | (np.isnan(ncc) & (found.share < SURE))
    return found.only(alike).pairs(ncc[alike]), said + images.trouble


def candidates(rows: np.ndarray, unit: np.ndarray, device: str = "cpu") -> Candidates:
    """Pair rows (n,) whose features of length 1 (n, D) are much nearer than others are to them, or than is usual."""
    distances, numbers = nearest(unit, NEIGHBOURS, device)
    if not distances.size:
        return Candidates(np.empty((0, 2), np.int64), np.empty(0), np.empty(0))
    far = np.maximum(distances[:, -1], np.finfo(np.float32).eps)
    at, rank = np.nonzero(distances < NEAR * np.maximum(far, np.median(far))[:, None])
    ends = np.stack([at, numbers[at, rank]], axis=1)
    distance, own = distances[at, rank], far[ends].min(axis=1)
    near = distance < NEAR * np.maximum(own, np.median(far))
    ends, first = np.unique(np.sort(rows[ends[near]], axis=1), axis=0, return_index=True)
    return Candidates(ends, distance[near][first], (distance / own)[near][first])


def _affordable(found: Candidates) -> tuple[Candidates, list[str]]:
    """Keep the nearest pairs, of no more images than may be decoded; say how many are left out."""
    seen: set[int] = set()
    kept = []
    for at in np.argsort(found.distance, kind="stable").tolist():
        more = {*found.ends[at].tolist()} - seen
        if len(seen) + len(more) > MAX_LOOKS:
            break
        seen |= more
        kept.append(at)
    left = len(found) - len(kept)
    said = f"{left} of {len(found)} pairs of much alike features were not compared: the farthest"
    return found.only(np.sort(np.array(kept, dtype=np.int64))), [said] if left else []


def compare(ends: np.ndarray, images: Images, progress: Progress) -> np.ndarray:
    """Correlate the pictures of each pair of rows (m, 2): -> (m,) -1..1, NaN where an image is not at hand."""
    rows, places = np.unique(ends, return_inverse=True)
    a, b = places.reshape(ends.shape).T
    greys, good = images.greys(rows, progress=progress)
    found = np.full(len(ends), np.nan)
    both = np.flatnonzero(good[a] & good[b])
    for start in range(0, len(both), CHUNK):
        at = both[start : start + CHUNK]
        found[at] = likeness(greys[a[at]], greys[b[at]])
    return found
