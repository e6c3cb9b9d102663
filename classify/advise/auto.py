"""Features -> the run of whatever pays: the story of `fit --strategy auto`.

The probe comes first; what is done beyond it keeps to a budget. The way to train that is taken in the end writes the
run, as it would by itself, with the advice in it.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np

from classify.advise.advice import Found, advice_of
from classify.advise.depth import depth_profile, images_within
from classify.advise.diagnostics import diagnose
from classify.advise.ladder import Answers, Ladder, in_points
from classify.advise.profile import USELESS, Profile
from classify.advise.trainer import BudgetTrainer
from classify.finetune.images import Source, find_source
from classify.inputs import Inputs
from classify.linear import Probe, begin_fit, fit_probe, write_probe
from classify.spec import FitSpec
from classify.tuning import LINEAR, STRATEGIES, TuneSpec
from extract.errors import FitError
from extract.progress import Watch

FOR_PROFILE = 0.25
"""Of the budget: what extracting the images for a depth profile may take."""
FEWEST_PROFILED = 100
"""Images: of fewer the profile is too rough to tell one case from another."""


def fit_auto(spec: FitSpec, watch: Watch) -> dict[str, Any]:
    """Fit the probe, find out what pays, and write the run of that; return the content of its metrics.json."""
    inputs, goal = begin_fit(spec, watch)
    probe = fit_probe(spec, inputs, watch)
    trainer = BudgetTrainer(spec, inputs, probe, watch)
    found = look(spec, inputs, probe, trainer, watch)
    goal = replace(goal, advise=lambda metrics: advice_of(spec, inputs, found, metrics["learning_curve"]))
    if found.ladder.best == LINEAR:
        plain = replace(spec, strategy=LINEAR, tune=TuneSpec())
        metrics = write_probe(plain, inputs, probe, goal, watch)
    else:
        metrics = trainer.write(found.ladder.best, goal)
    trainer.forget()
    return metrics


def look(
    spec: FitSpec, inputs: Inputs, probe: Probe, trainer: BudgetTrainer, watch: Watch, *, train: bool = True
) -> Found:
    """Profile the network, diagnose, and climb the ladder; without `train` no further than one cheap measurement."""
    began = time.perf_counter()
    source, unseen = images_of(spec, inputs)
    profile, said = profile_of(spec, inputs, source, watch)
    diagnostics = diagnose(spec, inputs, source, watch)
    ladder = Ladder(inputs.task, answers_of(probe), spec.min_gain, barred(unseen, profile))
    ladder.climb(trainer, train=train)
    return Found(profile, ladder, diagnostics, said, time.perf_counter() - began)


def images_of(spec: FitSpec, inputs: Inputs) -> tuple[Source | None, str]:
    """Find the images of the training and the test part: -> them, or None and why they are not at hand."""
    data = inputs.data
    rows = np.concatenate([data.train.rows, data.test.rows])
    try:
        return find_source(inputs.features, rows, spec.data, spec.root), ""
    except FitError as error:
        return None, str(error)


def profile_of(spec: FitSpec, inputs: Inputs, source: Source | None, watch: Watch) -> tuple[Profile | None, list[str]]:
    """Measure a depth profile on as many images as a share of the budget allows: -> it, or None and why."""
    if source is None:
        return None, ["no depth profile: the images are not at hand"]
    try:
        n = images_within(spec, inputs, source, watch, seconds=FOR_PROFILE * spec.budget_s)
        if n < min(FEWEST_PROFILED, len(inputs.data.train)):
            return None, [f"no depth profile: there is time for {n} images, and {FEWEST_PROFILED} are needed"]
        return depth_profile(spec, inputs, source, watch, most=n), []
    except FitError as error:
        return None, [f"no depth profile: {error}"]


def answers_of(probe: Probe) -> Answers:
    """Return what the probe answers out of fold, for all of the training part."""
    named, best = probe.judged.scores.argmax(axis=1), probe.judged.found.best
    found = {"layers": list(best.candidate.layers), "transform": best.candidate.transform, "head": best.head}
    return Answers(np.arange(len(named)), named, found | {"params": best.params}, round(probe.seconds, 3))


def barred(unseen: str, profile: Profile | None) -> dict[str, str]:
    """Say of rungs why they are not tried, whatever they may gain: `unseen` is why no image is at hand, "" if they are.

    From scratch a network is only trained where what it has learned is of no measurable use.
    """
    if unseen:
        return dict.fromkeys(STRATEGIES, unseen)
    if profile is not None and profile.similarity == USELESS:
        return {}
    why = f"the gain over random ones is {in_points(profile.gain)}" if profile else "nothing says that they are not"
    return {"scratch": f"the weights that are there are worth keeping: {why}"}
