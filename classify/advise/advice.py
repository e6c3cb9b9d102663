"""The advice as metrics.json has it: the case of the four, what was measured of it, and what to do."""

from dataclasses import replace
from typing import Any

import numpy as np

from classify.advise.command import command_of
from classify.advise.ladder import Ladder
from classify.advise.prior import FAR_SD, TRANSFER_SD
from classify.advise.profile import SIMILAR, UNCLEAR
from classify.advise.rungs import LEFT, TAPS
from classify.advise.survey import Seen
from classify.advise.trainer import BudgetTrainer
from classify.advise.wider import Wider, answers_of, foresee
from classify.advise.words import case_name, with_words
from classify.folds import Part
from classify.spec import AUTO, FitSpec
from classify.tuning import LINEAR

FEW = 50
"""Images of a class from which data count as large where the learning curve does not tell: there, training a whole
network clearly beat a linear probe, and at 25 not yet (Hoiem et al. 2021, figure 5a, CIFAR-100 by a ResNet-18)."""

LIKELY = 0.5
"""The probability of a gain worth having from which a way to train is recommended before it was tried."""

SIZES = {"data-limited": "small", "saturated": "large"}
"""What the learning curve says of the size: large is what more of the same would not help."""

NO_PROFILE = "without a depth profile it is not known which layer to add"
NO_OTHER = "all layers of the depth profile are among those that the probe chose from"

Curve = dict[str, Any]


def begin_ladder(trainer: BudgetTrainer, seen: Seen) -> Ladder:
    """Stand at the foot of the ladder: with the probe's answers, and with what was seen before anything is trained."""
    spec, inputs, probe = trainer.spec, trainer.inputs, answers_of(trainer.probe)
    foreseen = seen.profile and foresee(seen.profile, tuple(inputs.dims), inputs.task, probe)
    barred = seen.barred if foreseen else {TAPS: NO_PROFILE if seen.profile is None else NO_OTHER} | seen.barred
    if foreseen and seen.source:
        trainer.wider = Wider(spec, inputs, trainer.probe, seen.source, foreseen.tap, trainer.watch)
    similar = seen.profile is not None and seen.profile.similarity == SIMILAR
    return Ladder(inputs.task, probe, spec.min_gain, barred, TRANSFER_SD if similar else FAR_SD, foreseen)


def make_advice(spec: FitSpec, train: Part, curve: Curve | None, seen: Seen, ladder: Ladder) -> dict[str, Any]:
    """Put together what was found, and say in words what it comes to; `seconds` are for who knows them to add."""
    profile = seen.profile
    return with_words(
        {
            "case": _case(train, curve, seen),
            "metric": ladder.task.metric,
            "depth_profile": profile and profile.as_dict(),
            "learning_curve": curve and curve | {"limited": curve["verdict"]},
            "ladder": ladder.rows,
            "recommendation": _recommended(spec, ladder),
            "diagnostics": seen.diagnostics,
            "budget_s": spec.budget_s,
            "min_gain": spec.min_gain,
            "notes": seen.notes,
        }
    )


def _case(train: Part, curve: Curve | None, seen: Seen) -> dict[str, Any]:
    """Name the case by how similar the images are, and by whether more of them would help."""
    counts = np.bincount(train.y)
    n_per_class = float(np.median(counts[counts > 0]))
    by_count = "large" if n_per_class >= FEW else "small"
    size = SIZES.get(curve["verdict"], by_count) if curve else by_count
    similarity = seen.profile.similarity if seen.profile else UNCLEAR
    named = {"similarity": similarity, "size": size, "name": case_name(similarity, size)}
    return named | {"n_train": len(train), "n_per_class": n_per_class}


def _recommended(spec: FitSpec, ladder: Ladder) -> dict[str, Any]:
    """Recommend what was taken, or what may more likely than not pay; where anything is left to try, a fit that does.

    As such a fit takes only what surely gains, it may be run where little is likely to.
    """
    rows = {row["rung"]: row for row in ladder.rows}
    waiting = [row for row in rows.values() if row["why"] == LEFT]
    if not waiting:
        return _named(ladder.best, rows[ladder.best]["command"])
    first = waiting[0]
    rung = first["rung"] if first["predicted"]["p"] >= LIKELY else ladder.best
    return _named(rung, command_of(replace(spec, strategy=AUTO)))


def _named(rung: str, command: list[str]) -> dict[str, Any]:
    return {"strategy": LINEAR if rung == TAPS else rung, "rung": rung, "command": command}
