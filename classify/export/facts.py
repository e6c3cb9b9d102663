"""What a program says of itself: all that is needed to show it an image and to read its answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from classify.bundle import PACKAGES
from classify.deployed import Bundle
from extract.images import RESAMPLING
from extract.store.index import versions

FORMAT, FORMAT_VERSION = "offshelf program", "1"
PIXELS, PROBABILITIES = "pixels", "probabilities"
"""The input and the output of a program."""


@dataclass(frozen=True, eq=False)
class ProgramFile:
    """A program as the bytes of a file; `network` are the names of the nodes that int8 may be for."""

    data: bytes
    network: tuple[str, ...] = ()


def facts_of(bundle: Bundle) -> dict[str, str]:
    """Return names and texts; what is no plain text or number is JSON. The interpolation is called as in Pillow."""
    preset = bundle.recipe.preprocessing
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "classes": json.dumps(bundle.classes),
        "task": bundle.task,
        "resize_size": str(preset.resize_size),
        "crop_size": str(preset.crop_size),
        "interpolation": RESAMPLING[preset.interpolation].name.lower(),
        "thresholds": json.dumps(_thresholds(bundle)),
        "head": bundle.head,
        "layers": json.dumps(bundle.layers),
        "features_key": bundle.recipe.key,
        "recipe": bundle.recipe.to_json(indent=None),
        "versions": json.dumps(versions(PACKAGES)),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _thresholds(bundle: Bundle) -> Mapping[str, object]:
    """Return what probabilities are held against: to be answered at all, to be in the set, to be a label."""
    conformal = bundle.conformal
    sets = conformal and {"alpha": conformal.alpha, "one_minus_probability_up_to": conformal.thresholds}
    return {
        "answer_from": bundle.abstain.threshold if bundle.abstain else None,
        "set": sets,
        "labels_from": bundle.label_thresholds or None,
    }
