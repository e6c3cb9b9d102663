"""Rows that a cache has of images already, found by the content of their files: not computed again for a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract.record import Status
from extract.store import FeatureSet
from extract.store.folders import list_folders

Place = tuple[int, int]
"""Which feature set, and which row of it."""
DIGEST = "S32"
"""The type that numpy sorts digests as. It takes no notice of zeros at the end, which digests of one length share."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Feature sets of one recipe; of each the digests of its good rows, sorted (n,), and their numbers (n,)."""

    sets: list[FeatureSet]
    digests: list[np.ndarray]
    rows: list[np.ndarray]

    def find(self, contents: Sequence[bytes]) -> list[Place | None]:
        """Look up images by the SHA-256 of their bytes: where the row of each lies, None where there is none."""
        wanted = np.frombuffer(b"".join(contents), DIGEST)
        places: list[Place | None] = [None] * len(contents)
        for number, (digests, rows) in enumerate(zip(self.digests, self.rows, strict=True)):
            at = np.minimum(np.searchsorted(digests, wanted), len(digests) - 1)
            for i in np.flatnonzero(digests[at] == wanted).tolist():
                places[i] = number, int(rows[at[i]])
        return places

    def read(self, layer: str, places: Sequence[Place]) -> np.ndarray:
        """Read rows of a layer, proven as `FeatureSet.read` proves them: -> (n, D) float32; raises StoreError."""
        numbers, rows = np.array(places).T
        found = np.empty((len(places), *self.sets[0].shapes[layer]), np.float32)
        for number in np.unique(numbers).tolist():
            found[numbers == number] = self.sets[number].read(layer, rows[numbers == number])
        return found


def open_stored(cache: Path, key: str) -> Stored:
    """Open every feature set of a cache whose recipe has that key; raises StoreError where one is damaged."""
    folders = [each for each in list_folders(cache) if key.startswith(each.path.name) and each.index.is_file()]
    opened = [FeatureSet(each.index).check() for each in folders]
    sets = [features for features in opened if features.recipe.key == key and (features.status == Status.OK).any()]
    good = [np.flatnonzero(features.status == Status.OK) for features in sets]
    digests = [features.sha256[rows].copy().view(DIGEST)[:, 0] for features, rows in zip(sets, good, strict=True)]
    orders = [np.argsort(each) for each in digests]
    return Stored(
        sets,
        [each[order] for each, order in zip(digests, orders, strict=True)],
        [rows[order] for rows, order in zip(good, orders, strict=True)],
    )
