"""Images that are there twice, equal byte for byte or nearly so, and what belongs together because of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from classify.hygiene.near import Pair, near_pairs
from classify.hygiene.neighbours import seconds_for, unit_rows
from classify.hygiene.pixels import Images
from extract.progress import Progress, Silent

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

MAX_SECONDS = 120.0
"""The search for near-duplicates is left out where it is estimated to take longer."""


@dataclass(frozen=True)
class Duplicates:
    """What is there twice among `rows` (n,) of a feature set; `pairs` are row numbers, in order.

    `clusters` (n,) number the images: equal and nearly equal ones have one number. `searched` says whether nearly equal
    ones were looked for, and `confirmed_by` whether by "pixels" or by "features" alone.
    """

    rows: np.ndarray
    pairs: list[Pair]
    clusters: np.ndarray
    searched: bool
    confirmed_by: str
    notes: list[str] = field(default_factory=list)

    @property
    def n_groups(self) -> int:
        """How many images are there more than once."""
        return int((np.bincount(self.clusters, minlength=1) > 1).sum())

    def leaked(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Tell of each test row whether it is a training image too: row numbers (t,), (m,) -> (m,) bool."""
        inside, asked = (self.clusters[places(self.rows, rows)] for rows in (train, test))
        return np.isin(asked, inside)


def find_duplicates(
    features: "FeatureSet",
    layer: str,
    rows: np.ndarray,
    images: Images | None = None,
    *,
    max_seconds: float = MAX_SECONDS,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Duplicates:
    """Find images that are there twice among rows (n,), by one layer and, where `images` are at hand, by pixels.

    Where the search for nearly equal images is estimated to take longer than `max_seconds` it is left out, and the
    notes say so; equal ones are found all the same.
    """
    rows = np.asarray(rows, dtype=np.int64)
    contents = [features.sha256[row].tobytes() for row in rows.tolist()]
    firsts, pairs = _equal(rows, contents)
    notes = _too_long(features, layer, firsts, max_seconds)
    searched = not notes
    if searched:
        unit = unit_rows(features, layer, firsts)
        found, notes = near_pairs(firsts, unit, images, progress or Silent(), device)
        pairs = sorted(pairs + found, key=lambda pair: (pair.a, pair.b))
    clusters = _joined(len(rows), places(rows, [pair.a for pair in pairs]), places(rows, [pair.b for pair in pairs]))
    return Duplicates(rows, pairs, clusters, searched, "features" if images is None else "pixels", notes)


def _equal(rows: np.ndarray, contents: Sequence[bytes]) -> tuple[np.ndarray, list[Pair]]:
    """Return the first row of each content, in order, and its pair with each later one; zeros equal nothing."""
    first: dict[bytes, int] = {}
    firsts, pairs = [], []
    for row, content in zip(rows.tolist(), contents, strict=True):
        before = first.setdefault(content, row) if any(content) else row
        if before == row:
            firsts.append(row)
        else:
            pairs.append(Pair(min(before, row), max(before, row), "exact", 0.0, 1.0))
    return np.array(firsts, dtype=np.int64), sorted(pairs, key=lambda pair: (pair.a, pair.b))


def _too_long(features: "FeatureSet", layer: str, rows: np.ndarray, max_seconds: float) -> list[str]:
    """Say so where the search would take longer than it may; [] where it would not."""
    dims = features.read(layer, rows[:1]).shape[1] if len(rows) else 0
    seconds = seconds_for(len(rows), dims)
    if seconds <= max_seconds:
        return []
    if max_seconds <= 0:
        return ["near-duplicates were not looked for, as asked"]
    said = f"near-duplicates were not looked for: among {len(rows)} images of {dims} numbers each it would take about"
    return [f"{said} {round(seconds / 60) or 1} minutes. Have it done with --duplicates always"]


def _joined(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Number what is linked, in chains: n places, links from a (m,) to b (m,) -> (n,) int64, by first appearance."""
    links = csr_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(n, n))
    return connected_components(links, directed=False)[1].astype(np.int64)


def places(rows: np.ndarray, wanted: np.ndarray | list[int]) -> np.ndarray:
    """Find row numbers (m,) among rows (n,), which are all different: -> places (m,) int64."""
    place = {row: at for at, row in enumerate(np.asarray(rows).tolist())}
    return np.array([place[row] for row in np.asarray(wanted, dtype=np.int64).tolist()], dtype=np.int64)
