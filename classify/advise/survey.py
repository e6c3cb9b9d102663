"""What is looked at before anything is trained: the images, the layers of the network, and scores for those who ask."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from classify.advise.depth import depth_profile, images_within
from classify.advise.diagnostics import diagnose
from classify.advise.profile import USELESS, Profile
from classify.advise.rungs import RUNGS
from classify.finetune.images import Source, find_source
from classify.hygiene.pixels import origin
from classify.inputs import Inputs
from classify.spec import FitSpec
from extract.errors import FitError, Interrupted, OffshelfError
from extract.progress import Watch

FOR_PROFILE = 0.2
"""Of the budget: what the extractions of the depth profile may take."""
FEWEST = 100
"""Images below which there is no profile: an accuracy of 80 % is then known to 8 points at best."""
NO_IMAGES = "the images are not at hand: say where they are with --data DATA"
FETCH = "--data {} fetches the images; with --root they are looked for elsewhere"
NOT_USELESS = "what the network has learned is not shown to be useless here, and without that starting anew only loses"


class Clock(Protocol):
    """Knows how much time there is."""

    def left_s(self) -> float:
        """Return the seconds that are left."""
        ...


@dataclass(frozen=True, eq=False)
class Seen:
    """What was found before anything is trained; `source` and `profile` are None where there is none, `notes` say why.

    `barred` says of ways to train why they cannot be gone here.
    """

    source: Source | None
    profile: Profile | None
    diagnostics: dict[str, Any]
    barred: dict[str, str]
    notes: list[str]


def look(spec: FitSpec, inputs: Inputs, clock: Clock, watch: Watch) -> Seen:
    """Find the images, scan the network by depth as far as the time allows, and measure what else there is to see."""
    try:
        source = images_of(spec, inputs)
    except FitError as error:
        seen, notes = diagnose(spec, inputs, None, watch), [_mendable(error)]
        return Seen(None, None, seen, dict.fromkeys(RUNGS, NO_IMAGES), notes)
    profile, notes = _profile(spec, inputs, source, clock, watch)
    useless = profile is not None and profile.similarity == USELESS
    barred = {} if useless else {"scratch": NOT_USELESS}
    return Seen(source, profile, diagnose(spec, inputs, source, watch), barred, notes)


def images_of(spec: FitSpec, inputs: Inputs) -> Source:
    """Find the images that are trained on and tested; FitError where one is gone.

    What torchvision kept is not fetched anew, unless `data` names it: nobody has asked for a download.
    """
    data, root = origin(inputs.features.source)
    if spec.data is None and data.startswith("torchvision:") and (root is None or not root.is_dir()):
        raise FitError(f"{data} is not in {root} any more", where=inputs.features.name, remedy=FETCH.format(data))
    rows = np.concatenate([inputs.data.train.rows, inputs.data.test.rows])
    return find_source(inputs.features, rows, spec.data, spec.root)


def _profile(
    spec: FitSpec, inputs: Inputs, source: Source, clock: Clock, watch: Watch
) -> tuple[Profile | None, list[str]]:
    """Scan by depth as many images as there is time for: -> the profile or None, and why there is none."""
    room_s = FOR_PROFILE * clock.left_s()
    try:
        n = images_within(spec, inputs, source, watch, seconds=room_s)
        profile = (
            depth_profile(spec, inputs, source, watch, most=n) if n >= min(FEWEST, len(inputs.data.train)) else None
        )
    except Interrupted:
        raise
    except OffshelfError as error:  # a fit without it is still one
        return None, [f"no depth profile: {_mendable(error)}"]
    return profile, [] if profile else [f"no depth profile: {room_s:.1f} s are enough for {n} images only"]


def _mendable(error: OffshelfError) -> str:
    """Say what is wrong, and what to do about it."""
    return f"{error.what}. {error.remedy}" if error.remedy else error.what
