"""What all configurations of a search share, and what one of them was worth."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.evaluate import Resamples, interval
from classify.folds import Folds
from classify.multilabel.data import Part
from classify.multilabel.ranking import average_precisions, drawn_aps, mean_ap
from classify.probe.rows import Rows, read_rows

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

N_DRAWS = 200
"""Bootstrap draws that configurations are compared by; 1,000 would cost as much as the fits."""
STAGES = {"ridge": "scan", "logistic": "refine"}


@dataclass(frozen=True, eq=False)
class Trial:
    """One configuration: its `scores` (n, k) float32 out of fold, their mean AP, and that of each draw (N_DRAWS,)."""

    layers: tuple[str, ...]
    transform: str
    dims: int
    head: str
    params: dict[str, float]
    scores: np.ndarray
    value: float
    drawn: np.ndarray
    seconds: float
    converged: bool = True
    at_limit: bool = False

    def row(self, widening: float) -> dict[str, Any]:
        """Return the trial as metrics.json has it; `widening` is that of the draws."""
        where = {"layers": list(self.layers), "layer": " + ".join(self.layers), "dims": self.dims}
        how = {"transform": self.transform, "head": self.head, "params": self.params, "stage": STAGES[self.head]}
        cost = {"seconds": round(self.seconds, 4), "converged": self.converged, "at_limit": self.at_limit}
        return {**where, **how, "map": interval(self.value, self.drawn, widening), **cost}


@dataclass(frozen=True, eq=False)
class Task:
    """The features of a part, its folds and draws, the form of AP, and the machine.

    `room_bytes` is what features may take in memory; beyond it they are streamed from the cache at every pass.
    """

    features: "FeatureSet"
    part: Part
    folds: Folds
    resamples: Resamples
    form: str
    room_bytes: int
    device: str = "cpu"

    def rows(self, layers: tuple[str, ...], transform: str) -> Rows:
        """Return the part's rows after the transform's map of each row."""
        return read_rows(self.features, layers, transform, self.part.rows, room_bytes=self.room_bytes)

    def masks(self) -> np.ndarray:
        """Return who is trained on in each fold: (F, n) bool."""
        masks = np.zeros((len(self.folds), len(self.part)), dtype=bool)
        for mask, (train, _) in zip(masks, self.folds, strict=True):
            mask[train] = True
        return masks

    @property
    def counts(self) -> np.ndarray:
        """The draws that configurations are compared by: (units, N_DRAWS)."""
        return np.ascontiguousarray(self.resamples.counts[:, :N_DRAWS])

    def value(self, scores: np.ndarray) -> float:
        """Return the mean AP of scores (n, k)."""
        return float(mean_ap(average_precisions(self.part.Y, scores, self.form)))

    def drawn(self, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the mean AP of scores (n, k) in each draw: counts (units, B) -> (B,)."""
        return mean_ap(drawn_aps(self.part.Y, scores, self.resamples.unit, counts, self.form))
