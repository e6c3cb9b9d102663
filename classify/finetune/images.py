"""The images behind the features, all of which a training needs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classify.hygiene.pixels import briefly, origin
from extract.errors import FitError, OffshelfError
from extract.record import Record
from extract.sources import open_source
from extract.store import FeatureSet

REMEDY = "Say where they are with --data DATA"


@dataclass(frozen=True, eq=False)
class Source:
    """Where the images are, as `open_source` takes it, and the record of each row of the features that has one.

    Paths are absolute: a process that works in another folder, or on another machine, finds the same images.
    """

    data: str
    root: Path | None
    records: dict[int, Record]


def find_source(features: FeatureSet, rows: np.ndarray, data: str | None, root: Path | None) -> Source:
    """Find the images of rows (n,): in `data`, by default where they were extracted from; FitError where one is gone.

    That each is the one whose features they are is proven when it is read.
    """
    given, below = (data, root) if data is not None else origin(features.source)
    try:
        source = open_source(given, below)
    except (OffshelfError, OSError, ValueError) as error:
        raise FitError(
            f"the images to train on are not found ({briefly(error)})", where=features.name, remedy=REMEDY
        ) from error
    named = {record.id: record for record in source.records}
    missing = [features.ids[row] for row in rows.tolist() if features.ids[row] not in named]
    if missing:
        said = f"{len(missing)} of {len(rows)} images to train on and test are not in {given}: {missing[0]!r}"
        raise FitError(said, where=features.name, remedy=REMEDY)
    return Source(*origin(source.origin), {row: named[features.ids[row]] for row in rows.tolist()})
