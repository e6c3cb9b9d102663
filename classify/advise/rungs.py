"""What goes between a ladder and who trains its rungs: their names, what is offered, and what is answered."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from classify.advise.prior import Prediction
from classify.tuning import STRATEGIES, TuneSpec

CHEAPEST, CHEAP = STRATEGIES[0], "cheap"
"""The way that is measured cheaply first, to say what it and the others may bring; and what that is called."""

PREVENTED, UNLIKELY, TIME, FAILED, LEFT = "prevented", "unlikely", "time", "failed", "left to fit"
"""Why a rung was not tried: it cannot be, gains too little, takes too long, did not work; or nothing was to be.

One that was tried and taken may still have failed in its last training, on all images.
"""

TAPS = "taps"
"""The rung above the probe: the probe again, with one more layer to choose from."""

RUNGS = (TAPS, *STRATEGIES)
"""What is above the probe, from the cheapest."""

Row = dict[str, Any]
"""A rung as the advice in metrics.json has it."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What was answered for positions `at` (m,) of the training part, sorted: codes `named` (m,), and by what."""

    at: np.ndarray
    named: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Offer:
    """What a rung would take in all, in seconds, whether there is as much time, and how it would be trained.

    `what` takes that long: all of it, or what comes first where that is too much already.
    """

    seconds: float
    fits: bool
    tune: TuneSpec = field(default_factory=TuneSpec)
    what: str = "it"


@dataclass(frozen=True)
class Foreseen:
    """The layer that the probe may choose from too, and what it gains over the probe where both were measured."""

    tap: str
    gain: Prediction


Hopeful = Callable[[Answers, float], bool]
"""Whether to go on, by what was answered so far, a share of all that would be."""


class Trainer(Protocol):
    """Trains networks, and knows what that takes."""

    def left_s(self) -> float:
        """Return the seconds that are left."""
        ...

    def command(self, rung: str, tune: TuneSpec | None = None) -> list[str]:
        """Return the command that trains by a rung, as it was trained here if it was."""
        ...

    def measure(self) -> Answers | str:
        """Measure the cheapest rung cheaply: -> what it answers, or why that is not done."""
        ...

    def offer(self, rung: str, best: str, share: float) -> Offer:
        """Say what a rung takes, the last training of it or of `best` included.

        It is to get by on a `share` of the time that is left, and may take more only where that shows less; TAPS, which
        has no steps to leave out, may take all of it.
        """
        ...

    def train(self, rung: str, offer: Offer, hopeful: Hopeful) -> Answers:
        """Train without one fold after the other as long as that is hopeful, and answer for it."""
        ...
