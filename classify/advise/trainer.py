"""Trains the rungs of a ladder within a budget: what each takes is measured first, and what was trained is kept."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from classify.advise.command import command_of
from classify.advise.notes import About, Once
from classify.advise.price import Pace, Price, settle
from classify.advise.rungs import CHEAPEST, TAPS, Answers, Hopeful, Offer
from classify.advise.wider import Wider
from classify.curve import ENOUGH_TESTED
from classify.finetune import checkpoint
from classify.finetune.bench import Bench, Split
from classify.finetune.budget import cost, fit_budget
from classify.finetune.ground import Ground, Mirrored, may_flip, set_up, survey, wanted_maps
from classify.finetune.maps import maps_seconds
from classify.finetune.pace import measure_pace
from classify.finetune.plan import Augment, Plan, Setting, check_tuning
from classify.finetune.story import train_fold, write_tuned
from classify.finetune.trained import Trained, train_one
from classify.folds import Folds
from classify.inputs import Inputs
from classify.linear import Goal, Probe
from classify.scoring import Arrays
from classify.spec import FitSpec
from classify.tuning import AUTO, LINEAR, PRETRAINED, TuneSpec
from extract.progress import Watch

CHEAP = 0.1
"""Of the budget: what a cheap measurement may take."""
FOR_MAPS = 0.5
"""Of the time that is left: what may go into maps before it is known what a training on them takes."""
MAPS = "making its maps, which may have half of what is left,"
"""What takes too long where there are maps to be made."""
LOOKED_AT = 64
"""Validation images, by which the pace of looking at all of them is measured."""
OWN = {
    "cut": ("tail",),
    "views": ("tail",),
    "freeze_until": ("lp-ft", "full"),
    "wise": ("tail", "lp-ft"),
    "gradual": PRETRAINED,
    "layer_decay": PRETRAINED,
    "bn": PRETRAINED,
}
"""Settings that mean something to some rungs alone."""


class BudgetTrainer:
    """Trains within the budget of a fit, from when it is made on; `clock` tells the seconds.

    What a rung was trained with is kept, so that `write` has nothing to train twice; `forget` ends that.
    """

    def __init__(
        self, spec: FitSpec, inputs: Inputs, probe: Probe, watch: Watch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.spec, self.inputs, self.probe, self.watch, self.clock = spec, inputs, probe, Once(watch), clock
        self.began_at = clock()
        self.n_folds = folds_needed(inputs.task.folds, spec.tune.folds)
        self.tunes: dict[str, TuneSpec] = {}
        self.last_s: dict[str, float] = {LINEAR: 0.0, TAPS: 0.0}
        self.paces: dict[Any, Pace] = {}
        self.folders: set[Path] = set()
        self.mirrored: Mirrored | None = None
        self.grounds: dict[str, Ground] = {}
        self.heads: dict[str, Arrays] = {}
        self.wider: Wider | None = None

    def left_s(self) -> float:
        """Return the seconds that are left, 0 or more."""
        return max(0.0, self.spec.budget_s - self.spent_s())

    def spent_s(self) -> float:
        """Return the seconds since it was made."""
        return self.clock() - self.began_at

    def command(self, rung: str, tune: TuneSpec | None = None) -> list[str]:
        """Return the command that trains by a rung, as it was trained here if it was."""
        if rung == TAPS:
            return self.wider.command() if self.wider else []
        asked = replace(self._tune(rung), seeds=self.spec.tune.seeds)
        tune = TuneSpec() if rung == LINEAR else tune or asked
        return command_of(replace(self.spec, strategy=rung, tune=tune, min_gain=FitSpec.min_gain))

    def measure(self) -> Answers | str:
        """Train the cheapest rung with one setting, without the first fold alone: -> answers, or why it is not done."""
        began, room_s = self.clock(), min(CHEAP * self.spec.budget_s, self.left_s())
        tune = replace(self._tune(CHEAPEST), folds=1)
        maps_s = self._maps_s(CHEAPEST, tune)
        if maps_s > room_s:
            return f"its maps alone would take about {maps_s:.1f} s, and {room_s:.1f} s are allowed"
        with self._bench(CHEAPEST, tune) as (bench, ground):
            room_s -= self.clock() - began
            pace = self._pace(bench, ground)  # the rung itself needs it, too: no price of the measurement
            if cost(bench.plan, *pace, self.n_folds + ground.repeats - 1) <= room_s:
                return "all of it takes no longer than a measurement may"
            plan = replace(bench.plan, settings=(_middle(bench.plan),))
            plan, _ = fit_budget(plan, *pace, max(room_s, 0.0), 0)
            split, held = ground.folds[0]
            trained = train_one(
                replace(bench, plan=plan), "measured without fold 1", split, self.spec.seed, *plan.settings
            )
            named = bench.scores(trained.network, held).argmax(axis=1)
        return _answers([(held, named)], trained, self.clock() - began)

    def offer(self, rung: str, best: str, share: float) -> Offer:
        """Measure what a rung takes, and find as many folds and steps as there is time for."""
        if rung == TAPS:
            return self._wider().offer(self.left_s())
        tune = replace(self._tune(rung), folds=self.n_folds)
        maps_s = self._maps_s(rung, tune)
        if maps_s > FOR_MAPS * self.left_s():
            return Offer(maps_s, fits=False, tune=tune, what=MAPS)
        with self._bench(rung, tune) as (bench, ground):
            price = Price(bench.plan, self._pace(bench, ground), ground.repeats, self.last_s[best])
            left_s = self.left_s()
            fits, steps, folds = settle(price, share * left_s, left_s, len(ground.folds))
            tune = replace(tune, folds=folds, steps=tune.steps if steps == bench.plan.steps else steps)
            self.last_s[rung] = price.last_s(steps)
        return Offer(price.seconds(steps, folds), fits, tune)

    def train(self, rung: str, offer: Offer, hopeful: Hopeful) -> Answers:
        """Train without one fold after the other as long as that is hopeful, and answer for it."""
        if rung == TAPS:
            return self._wider().train()
        began, found = self.clock(), []
        with self._bench(rung, offer.tune) as (bench, ground):
            planned = sum(len(held) for _, held in ground.folds)
            trained, scores = train_fold(bench, ground, 0, None)
            while True:
                found.append((ground.folds[len(found)][1], scores.argmax(axis=1)))
                answers = _answers(found, trained, self.clock() - began)
                if len(found) == len(ground.folds) or not hopeful(answers, len(answers.at) / planned):
                    break
                trained, scores = train_fold(bench, ground, len(found), trained.setting)
        self.tunes[rung] = replace(offer.tune, folds=len(found))
        return answers

    def write(self, rung: str, goal: Goal) -> dict[str, Any]:
        """Train by a rung on all images, and write the run; its folds are there."""
        if rung == TAPS:
            return self._wider().write(goal)
        with self._bench(rung, self.tunes[rung]) as (bench, ground):
            return write_tuned(bench, ground, self.probe, goal)

    def forget(self) -> None:
        """Remove the checkpoints of all that was trained."""
        for folder in self.folders:
            checkpoint.forget(folder)

    def _wider(self) -> Wider:
        return cast(Wider, self.wider)  # the rung is barred where there is none

    def _tune(self, rung: str) -> TuneSpec:
        """Return what was asked for, as far as it means something to a rung; one last training, unless more are."""
        tune = self.tunes.get(rung, self.spec.tune)
        return replace(own(tune, rung), budget_s=None, seeds=tune.seeds or 1)

    @contextmanager
    def _bench(self, rung: str, tune: TuneSpec) -> Iterator[tuple[Bench, Ground]]:
        spec, ground = replace(self.spec, strategy=rung, tune=tune), self._ground(rung, tune)
        watch = About(rung, self.watch)
        with set_up(spec, self.inputs, ground, self.probe, watch, self._mirrored(ground)) as bench:
            try:
                yield replace(bench, heads=self.heads), ground
            finally:
                self.folders |= bench.folders

    def _ground(self, rung: str, tune: TuneSpec) -> Ground:
        """Survey a rung once, with all folds, and take as many of these as are asked for."""
        if rung not in self.grounds:
            spec = replace(self.spec, strategy=rung, tune=replace(tune, folds=self.n_folds))
            self.grounds[rung] = survey(spec, self.inputs)
        ground = self.grounds[rung]
        return replace(ground, folds=ground.folds[: tune.folds])

    def _mirrored(self, ground: Ground) -> Mirrored:
        if self.mirrored is None:
            self.mirrored = may_flip(self.spec, self.inputs, ground.source, self.probe, self.watch)
        return self.mirrored

    def _maps_s(self, rung: str, tune: TuneSpec) -> float:
        """Say how long the maps take that a rung trains on; 0 where it trains on images, or they are there."""
        if rung != CHEAPEST:
            return 0.0
        spec, ground = replace(self.spec, strategy=rung, tune=tune), self._ground(rung, tune)
        flip, _ = self._mirrored(ground)
        asked = tune.augment
        augment = Augment(True, flip) if asked == AUTO else Augment("crop" in asked, "flip" in asked)
        return maps_seconds(self.inputs.features, wanted_maps(spec, ground, augment), self.watch)

    def _pace(self, bench: Bench, ground: Ground) -> Pace:
        """Measure a step, and a look at few images, from which follows one at all."""
        plan, split = bench.plan, ground.folds[0][0]
        alike = bench.examples.cached, bench.until, plan.batch_size, plan.bn
        if alike not in self.paces:
            few = Split(split.train, split.val[:LOOKED_AT])
            step_s, look_s = measure_pace(bench, few, bench.spec.seed)
            self.paces[alike] = step_s, look_s * len(split.val) / len(few.val)
        return self.paces[alike]


def own(tune: TuneSpec, rung: str) -> TuneSpec:
    """Leave out what means nothing to a rung."""
    return replace(tune, **{name: getattr(TuneSpec, name) for name, rungs in OWN.items() if rung not in rungs})


def check_settings(tune: TuneSpec) -> None:
    """Refuse settings that clash whichever way is gone; OptionError. What one way cannot do leaves the others."""
    check_tuning(CHEAPEST, own(tune, CHEAPEST))


def folds_needed(folds: Folds, asked: int) -> int:
    """Say how many of the folds are trained without: as many as asked for, or until enough images are answered for."""
    if asked > 1:
        return min(asked, len(folds))
    tested = np.cumsum([len(test) for _, test in folds])
    return min(len(folds), int(np.searchsorted(tested, ENOUGH_TESTED)) + 1)


def _middle(plan: Plan) -> Setting:
    """Return the setting in the middle of the grid, of two the one with the lower rate."""
    ordered = sorted(plan.settings, key=lambda setting: (setting.rate, setting.weight_decay))
    return ordered[(len(ordered) - 1) // 2]


def _answers(found: list[tuple[np.ndarray, np.ndarray]], trained: Trained, seconds: float) -> Answers:
    """Put together what folds were answered with: (positions, codes) of each."""
    at, named = (np.concatenate(each) for each in zip(*found, strict=True))
    order, setting = np.argsort(at), trained.setting
    told = {"rate": setting.rate, "weight_decay": setting.weight_decay, "steps": trained.outcome.step}
    return Answers(at[order], named[order], told | {"folds": len(found)}, round(seconds, 3))
