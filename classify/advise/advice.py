"""The advice as metrics.json has it: the case of the four, what was measured of it, and what to do."""

from dataclasses import replace
from typing import Any

import numpy as np

from classify.advise.command import command_of
from classify.advise.ladder import LEFT, Answers, Ladder
from classify.advise.prior import FAR_SD, TRANSFER_SD
from classify.advise.profile import SIMILAR, UNCLEAR
from classify.advise.survey import Seen
from classify.advise.words import case_name, with_words
from classify.folds import Part
from classify.linear import Probe
from classify.spec import AUTO, FitSpec
from classify.trials import Task

FEW = 50
"""Images of a class from which data count as large where the learning curve does not tell: there, training a whole
network clearly beat a linear probe, and at 25 not yet (Hoiem et al. 2021, figure 5a, CIFAR-100 by a ResNet-18)."""

LIKELY = 0.5
"""The probability of a gain worth having from which a way to train is recommended before it was tried."""

SIZES = {"data-limited": "small", "saturated": "large"}
"""What the learning curve says of the size: large is what more of the same would not help."""

Curve = dict[str, Any]


def answers_of(probe: Probe) -> Answers:
    """Return what the probe answers for the training part, each image without having been fitted on it."""
    best, scores = probe.judged.found.best, probe.judged.scores
    settings = {"layers": list(best.candidate.layers), "transform": best.candidate.transform, "head": best.head}
    at, told = np.arange(len(scores)), settings | {"params": best.params}
    return Answers(at, scores.argmax(axis=1), told, round(probe.seconds, 3))


def begin_ladder(spec: FitSpec, task: Task, probe: Probe, seen: Seen) -> Ladder:
    """Stand at the foot of the ladder: with the probe's answers, and with what was seen before anything is trained."""
    similar = seen.profile is not None and seen.profile.similarity == SIMILAR
    return Ladder(task, answers_of(probe), spec.min_gain, seen.barred, TRANSFER_SD if similar else FAR_SD)


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
        return {"strategy": ladder.best, "command": rows[ladder.best]["command"]}
    first = waiting[0]
    strategy = first["rung"] if first["predicted"]["p"] >= LIKELY else ladder.best
    return {"strategy": strategy, "command": command_of(replace(spec, strategy=AUTO))}
