"""What examples are made of, said in paths and numbers: another process opens the same ones by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from classify.finetune.examples import Examples
from classify.finetune.image_examples import ImageExamples
from classify.finetune.images import find_source
from classify.finetune.map_examples import MapExamples
from extract.store.reader import FeatureSet


@dataclass(frozen=True, eq=False)
class Shown:
    """Images in `data`, below `root`, or cached `maps`: the path of a feature set, of which `layer` is taken.

    `features` is the path of the feature set that a training begins with; `rows` (n,) are rows of the maps, or else of
    these, and y (n,) their codes.
    """

    features: Path
    rows: np.ndarray
    y: np.ndarray
    data: str
    root: Path | None = None
    maps: Path | None = None
    layer: str = ""

    @contextmanager
    def opened(self, device: torch.device, workers: int) -> Iterator[Examples]:
        """Open the examples for a device, with so many processes that decode; errors as those who open them say."""
        if self.maps is not None:
            with FeatureSet(self.maps) as maps:
                yield MapExamples(maps, self.layer, self.rows, self.y, device=device)
            return
        features = FeatureSet(self.features)
        records = find_source(features, self.rows, self.data, self.root).records.values()
        with ImageExamples(features, records, self.rows, self.y, workers=workers, device=device) as examples:
            yield examples
