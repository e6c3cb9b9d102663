"""The rung `taps`: the linear probe again, with one more layer to choose from, the one that the depth profile shows.

A profile pools its layers to grids, so that it sees what features that were pooled to a mean per channel do not tell.
The network stays as it is: what that costs is one more extraction.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from classify.advise.command import command_of
from classify.advise.prior import Measured, Prediction, standard_error
from classify.advise.profile import Profile, largest
from classify.advise.rungs import Answers, Foreseen, Offer
from classify.evaluate import draw_resamples, values_of
from classify.finetune.again import extraction_again
from classify.finetune.images import Source
from classify.inputs import Inputs, open_for_fit, read_inputs
from classify.linear import Goal, Probe, fit_probe, write_probe
from classify.spec import FitSpec
from classify.statistics import drawn
from classify.trials import Task
from classify.tuning import LINEAR, TuneSpec
from extract.errors import FitError
from extract.progress import Watch
from extract.run import dry_run, extract

SUFFIX = "-taps"
FIXED = 1 << 18
"""Rows times columns that take a probe as long as all that does not depend on them (two cores)."""


def answers_of(probe: Probe) -> Answers:
    """Return what a probe answers for the training part, each image without having been fitted on it."""
    best, scores = probe.judged.found.best, probe.judged.scores
    settings = {"layers": list(best.candidate.layers), "transform": best.candidate.transform, "head": best.head}
    at, told = np.arange(len(scores)), settings | {"params": best.params}
    return Answers(at, scores.argmax(axis=1), told, round(probe.seconds, 3))


def foresee(profile: Profile, had: Sequence[str], task: Task, probe: Answers) -> Foreseen | None:
    """Say which layer of a profile, but for the taps `had`, does best beside the probe, and what it gains there.

    Both have answered for the images of the profile, each left out in its turn; the interval allows for the choice
    among the layers. None where there is none to choose.
    """
    more = [number for number, tap in enumerate(profile.taps) if tap.layer not in had]
    if not more or profile.answered is None:
        return None
    at = profile.answered.at
    codes = np.r_[profile.answered.codes[more], probe.named[None, at]]
    resamples = draw_resamples(len(at), None if task.groups is None else task.groups[at], task.seed)
    values, draws = values_of(task.y[at], codes)[task.metric], drawn(codes, task.y[at], resamples, task.metric)
    gain, best = largest(values[:-1] - values[-1], draws[:-1] - draws[-1], resamples.widening)
    found = Measured.on(gain["value"], standard_error(gain["low"], gain["high"]), len(resamples.counts))
    return Foreseen(profile.taps[more[best]].layer, Prediction(found.gain, found.error, 1 - float(values[-1])))


class Wider:
    """A probe on the taps that were chosen from and on one more: extracted from `source`, fitted and judged alike."""

    def __init__(self, spec: FitSpec, inputs: Inputs, probe: Probe, source: Source, tap: str, watch: Watch) -> None:
        asked = extraction_again(inputs.features, source.data, source.root, SUFFIX)
        self.asked = replace(asked, taps=(*inputs.dims, tap), device=spec.device, workers=spec.jobs)
        self.spec, self.tap, self.watch = spec, tap, watch
        self.first = self.inputs = inputs
        self.probe = probe

    def command(self) -> list[str]:
        """Return the command that does the same: a fit that chooses or, once all is extracted, a linear one."""
        return command_of(self.spec)

    def offer(self, left_s: float) -> Offer:
        """Say what it takes, by a short probe of the extraction and by what the first probe took."""
        plan = dry_run(self.asked, self.watch)
        n, had, more = len(self.first.task.y), sum(self.first.dims.values()), math.prod(plan["layers"][self.tap])
        seconds = plan["estimated_s"] + self.probe.seconds * (n * (had + more) + FIXED) / (n * had + FIXED)
        return Offer(seconds, seconds <= left_s, TuneSpec(folds=len(self.first.task.folds)))

    def train(self) -> Answers:
        """Extract, fit, and answer for the training part. FitError where the images do not fall into the same folds."""
        began = time.perf_counter()
        done = extract(self.asked, self.watch)
        known: dict[str, Any] = {"features": done["features"], "cache": self.asked.cache, "layers": ()}
        self.spec = replace(self.spec, **known, strategy=LINEAR, tune=TuneSpec(), min_gain=FitSpec.min_gain)
        # By the tap that the folds were made by, so that they stay the same.
        self.inputs = read_inputs(self.spec, open_for_fit(self.spec), self.watch, self.first.deepest)
        _check_alike(self.first, self.inputs)
        self.probe = fit_probe(self.spec, self.inputs, self.watch)
        return replace(answers_of(self.probe), seconds=round(time.perf_counter() - began, 3))

    def write(self, goal: Goal) -> dict[str, Any]:
        """Write the run of the probe, with the warnings of what was tried above it."""
        warnings = list(dict.fromkeys([*self.inputs.warnings, *self.first.warnings]))
        return write_probe(self.spec, replace(self.inputs, warnings=warnings), self.probe, goal, self.watch)


def _check_alike(first: Inputs, second: Inputs) -> None:
    """Raise FitError unless two fits have the same images in the same folds and the same test part."""
    if _parts(first) != _parts(second):
        said = "images were changed, or fall into other folds than before, or into another test part"
        raise FitError(said, where=second.features.name, remedy="Extract the features anew")


def _parts(inputs: Inputs) -> list[list[tuple[str, bytes]]]:
    """Return id and content of each fold's images, and of those of the test part."""
    features, train = inputs.features, inputs.data.train.rows
    rows = [*(train[test] for _, test in inputs.task.folds), inputs.data.test.rows]
    return [[(features.ids[row], features.sha256[row].tobytes()) for row in part.tolist()] for part in rows]
