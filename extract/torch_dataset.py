"""Cached features as a PyTorch data set, for training loops."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from extract.store import FeatureSet, open_features
from extract.store.reader import row_numbers


class FeatureDataset(Dataset[tuple[Tensor, int]]):
    """Rows of one layer with their labels: item i is X (D,) or (C, H, W) float32, and y, -1 where there is no label.

    `rows` are row numbers of the feature set, by default all good ones; `layer` is a tap, by default the primary one,
    or a further view of it as in `layer4@1`. A DataLoader fetches a whole batch at once.
    """

    def __init__(self, features: FeatureSet, layer: str | None = None, rows: ArrayLike | None = None) -> None:
        self.features = features
        self.layer = layer or features.recipe.primary.name
        features.check_layer(self.layer)
        self.rows = features.rows() if rows is None else row_numbers(rows, len(features))

    @classmethod
    def open(cls, features: str, cache: Path = Path("cache"), layer: str | None = None) -> "FeatureDataset":
        """Open `NAME`, `NAME/KEYPREFIX` or the path of an index."""
        return cls(open_features(features, cache), layer)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Fetch a batch in one read."""
        rows = self.rows[np.asarray(indices, np.int64)]
        X = torch.from_numpy(self.features.read(self.layer, rows))
        return list(zip(X.unbind(), self.features.labels[rows].tolist(), strict=True))
