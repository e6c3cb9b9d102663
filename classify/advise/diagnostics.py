"""Scores and shifts beside the evidence, for those who know them: printed, and never deciding."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from classify.advise.leep import leep, source_shares
from classify.advise.sample import subset
from classify.advise.scores import h_score, logme, neighbours_say
from classify.advise.shift import batch_norm_shift
from classify.evaluate import draw_resamples, evaluate
from classify.finetune.begin import part_of
from classify.finetune.images import Source
from classify.folds import Part
from classify.inputs import Inputs
from classify.spec import FitSpec
from extract.errors import Interrupted, OffshelfError
from extract.progress import Watch

MOST, MOST_NUMBERS = 2000, 1 << 25
"""Training images, and features of them: an agreement of 80 % is then known to 1.8 points, in seconds and 256 MiB."""
NEIGHBOURS = 20
""""20 is usually working the best" (dinov2/eval/knn.py)."""


@dataclass(frozen=True, eq=False)
class Looks:
    """What is measured: rows `part` of the deepest layer, X (n, D) float32, and all that the fit has."""

    spec: FitSpec
    inputs: Inputs
    source: Source | None
    watch: Watch
    part: Part
    X: np.ndarray


def diagnose(spec: FitSpec, inputs: Inputs, source: Source | None, watch: Watch) -> dict[str, Any]:
    """Measure the training images as the deepest layer has them; `source` is None where the images are not at hand.

    -> {batch_norm_shift: [{layer, shift}], leep, logme, h_score, knn: {k, value, low, high}, notes}. What cannot be
    measured is None, and a note says why.
    """
    layer, dims = list(inputs.dims.items())[-1]
    train = inputs.data.train
    part = part_of(train, subset(train, spec.seed, min(MOST, MOST_NUMBERS // dims)))
    looks = Looks(spec, inputs, source, watch, part, inputs.features.read(layer, part.rows))
    found: dict[str, Any] = dict.fromkeys(MEASURES)
    notes: list[str] = []
    for name, (title, measure) in MEASURES.items():
        try:
            found[name] = measure(looks)
        except Interrupted:
            raise
        except OffshelfError as error:
            notes.append(f"no {title}: {error.what}")
    return found | {"notes": notes}


def _agreement(looks: Looks) -> dict[str, float]:
    """Say how often the nearest images of other groups name an image rightly, with a 95 % interval."""
    y, groups = looks.part.y, looks.part.groups
    said, k = neighbours_say(looks.X, y, groups, NEIGHBOURS)
    return {"k": k, **evaluate(y, said, draw_resamples(len(y), groups, looks.spec.seed))["accuracy"]}


MEASURES: dict[str, tuple[str, Callable[[Looks], Any]]] = {
    "knn": ("agreement of neighbours", _agreement),
    "logme": ("LogME", lambda looks: logme(looks.X, looks.part.y)),
    "h_score": ("H-score", lambda looks: h_score(looks.X, looks.part.y)),
    "leep": ("LEEP", lambda looks: leep(source_shares(looks.inputs.features, looks.part.rows), looks.part.y)),
    "batch_norm_shift": (
        "shift of BatchNorm",
        lambda looks: batch_norm_shift(looks.spec, looks.inputs, looks.source, looks.watch),
    ),
}
