"""What a run deploys, in memory: features in, scores, probabilities and answers out, in plain numpy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from classify.examples import Examples
from classify.manifest import WEIGHTS
from classify.scoring import ROWWISE, SCORERS, SHAPES, Arrays, join, model_scores, prepare, sigmoid, softmax
from classify.thresholds import Abstain, Conformal, OpenSet
from extract.errors import BundleError
from extract.recipe import Recipe

SHARES = {"single": softmax, "multi": sigmoid}
"""By task, scores (n, C) -> probabilities: of one label an image, or of each class by itself."""

Blocks = Mapping[str, np.ndarray]
"""Features by the name of their tap: (n, D_i) each."""


@dataclass(frozen=True)
class Answers:
    """Of n rows the probabilities (n, C), and, where the bundle has thresholds for them, what they let one say.

    `sets` (n, C) bool are the conformal sets; `novelty` (n,) is the distance to what was seen over its threshold, above
    1 for what is unlike it.
    """

    probabilities: np.ndarray
    sets: np.ndarray | None
    novelty: np.ndarray | None


@dataclass(frozen=True)
class Bundle:
    """A fitted head with its recipe. `kind` names its formula; `temperature` divides scores before they are shares.

    `layers` are taps in the centre view, which is all that a prediction computes, whatever else the recipe has; the
    rows of several are joined. `transform` is applied to the joined rows, what was fitted of it being in `arrays`. The
    `task` "single" gives one label an image; "multi" gives every class whose probability reaches its one of
    `label_thresholds` (C,). `examples` are features with what the head says of them, to be proven wherever it is read.
    `model` is the estimator of the kind "imported". `digest` is that of the manifest, and so of all files.
    """

    recipe: Recipe
    layers: tuple[str, ...]
    transform: str
    head: str
    kind: str
    params: dict[str, Any]
    classes: list[str]
    temperature: float
    arrays: Arrays
    task: str = "single"
    label_thresholds: tuple[float, ...] = ()
    conformal: Conformal | None = None
    abstain: Abstain | None = None
    open_set: OpenSet | None = None
    examples: Examples | None = None
    model: Any = None
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    digest: str = ""
    folder: Path | None = None

    def scores(self, blocks: Blocks) -> np.ndarray:
        """Score each class, in plain numpy: features (n, D_i) of each of `layers` -> (n, C) float64."""
        return self.score(self.joined(blocks))

    def probabilities(self, blocks: Blocks) -> np.ndarray:
        """Return calibrated probabilities: features of each layer -> (n, C)."""
        return SHARES[self.task](self.scores(blocks) / self.temperature)

    def answer(self, blocks: Blocks) -> Answers:
        """Return all that can be said of rows: features (n, D_i) of each layer -> probabilities, sets, novelty."""
        X = self.joined(blocks)
        shares = SHARES[self.task](self.score(X) / self.temperature)
        sets = self.conformal.sets(shares) if self.conformal else None
        return Answers(shares, sets, self.open_set.novelty(X) if self.open_set else None)

    def joined(self, blocks: Blocks) -> np.ndarray:
        """Lay the rows of the layers side by side: (n, D_i) each -> (n, D) float64, before the transform."""
        return join([np.asarray(blocks[layer], dtype=np.float64) for layer in self.layers])

    def score(self, X: np.ndarray) -> np.ndarray:
        """Score joined rows: (n, D) -> (n, C)."""
        if not len(X):
            return np.empty((0, len(self.classes)))  # scikit-learn refuses to score no rows
        Z = ROWWISE[self.transform](X)
        if self.kind == "imported":
            return model_scores(self.model, prepare(self.arrays, Z))
        return SCORERS[self.kind](self.arrays, Z)

    @property
    def width(self) -> int:
        """Columns of the joined features that the head takes."""
        [width] = {self.arrays[name].shape[axes.index("D")] for name, axes in SHAPES[self.kind].items() if "D" in axes}
        return width

    @property
    def weights_path(self) -> Path:
        """The network's weights, beside the head."""
        if self.folder is None:
            raise BundleError("the bundle was never written", remedy="Call write_bundle, then read_bundle")
        return self.folder / WEIGHTS
