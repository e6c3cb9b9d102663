"""Which learning rate: all are tried for a while, the best for longer, the best of those to the end.

Successive halving (Jamieson and Talwalkar 2016), with a third going on: a ninth of the steps, a third, all. A setting
that goes on does so from its own checkpoint, on the schedule of the whole training: it is a training cut short, and not
a short one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from classify.finetune.job import Job, Outcome
from classify.finetune.plan import Plan, Setting, rounded
from extract.errors import TrainingError
from extract.progress import Watch

ETA, RUNGS = 3, 3
WIDER = 3.0
"""How far beyond the first or last rate one more is tried."""

Try = Callable[[Setting, int], Outcome]
"""Trains with a setting up to a step, going on from where the same setting stood."""


Run = Callable[[Job, int | None], Outcome]
"""Does a job up to a step, or to its end."""


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search found: the best setting, its training run to the end, every trial, and what is worth saying."""

    best: Setting
    outcome: Outcome
    trials: list[dict[str, Any]]
    notes: list[str]


def settle(job: Job, run: Run, watch: Watch, *, searching: bool) -> Searched:
    """Train with the setting of a job; or, `searching`, find one of its plan's first, and train with that."""
    if not searching:
        return Searched(job.setting, run(job, None), [], [])

    def attempt(setting: Setting, stop_at: int) -> Outcome:
        decay = f", weight decay {setting.weight_decay:g}" if setting.weight_decay else ""
        named = f"{job.name}, rate {setting.rate:g}{decay}"
        return run(replace(job, name=named, setting=setting, trial=True), stop_at)

    return search(attempt, job.plan, watch)


def search(try_: Try, plan: Plan, watch: Watch) -> Searched:
    """Find the setting with the lowest validation loss by successive halving, and train it to the end.

    Where the weights are fresh, trainings cut short are compared by the training loss since the last look. Of equals
    the lower rate is taken. A setting that diverges drops out, and the next best takes its place. Raises TrainingError
    where all of them do.
    """
    trials, notes = Trials(try_, plan, watch), []
    (stop, keep), *later = brackets(plan)
    ranked = trials.run(plan.settings, stop, keep)
    if later and (wider := beyond(plan, ranked[0])):
        notes.append(f"the best rate, {ranked[0].rate:g}, is at the edge of the grid: {wider.rate:g} is tried too")
        watch.note(notes[0])
        ranked = trials.run([*ranked, wider], stop, len(ranked) + 1)
    for stop, keep in later:
        ranked = trials.run(ranked, stop, keep)
    return trials.chosen(ranked[0], notes)


def brackets(plan: Plan) -> list[tuple[int, int]]:
    """Say up to which steps how many settings are trained: the first all of them, the last to the end.

    They are compared at a look, the first from the ninth or the third on, and not while the rate still rises. One that
    is left alone goes to the end at once.
    """
    every = plan.evaluate_every
    looks = {-(-plan.steps // (ETA**at * every)) * every for at in range(1, RUNGS)}
    stops = [stop for stop in sorted(looks) if plan.warmup_steps < stop < plan.steps] + [plan.steps]
    found = []
    for at, stop in enumerate(stops):
        keep = math.ceil(len(plan.settings) / ETA**at)
        found.append((plan.steps if keep == 1 else stop, keep))
        if keep == 1:
            break
    return found


def search_steps(plan: Plan) -> int:
    """Count the steps of a search whose best rate is at an edge: the most that it takes where nothing diverges."""
    steps, reached = 0, 0
    for at, (stop, keep) in enumerate(brackets(plan)):
        steps += keep * (stop - reached) + (stop if at == 0 and _rates(plan)[1:] and stop < plan.steps else 0)
        reached = stop
    return steps


def beyond(plan: Plan, best: Setting) -> Setting | None:
    """Return a setting beyond the grid where the best is its first or last rate, if it has several."""
    rates = _rates(plan)
    if len(rates) == 1 or best.rate not in (rates[0], rates[-1]):
        return None
    factor = WIDER if best.rate == rates[-1] else 1 / WIDER
    decay = rounded(best.weight_decay / factor) if plan.decay_over_rate else best.weight_decay
    return Setting(best.rate * factor, decay)


def _rates(plan: Plan) -> list[float]:
    return sorted({setting.rate for setting in plan.settings})


class Trials:
    """Settings as far as they have been tried."""

    def __init__(self, try_: Try, plan: Plan, watch: Watch) -> None:
        self.try_, self.plan, self.watch = try_, plan, watch
        self.outcomes: dict[Setting, Outcome] = {}

    def run(self, queue: Sequence[Setting], stop: int, keep: int) -> list[Setting]:
        """Train settings in turn up to a step until `keep` are there: -> those, best first. TrainingError if none."""
        there: list[Setting] = []
        for setting in queue:
            if len(there) < keep and not self._train(setting, stop).diverged:
                there.append(setting)
        if not there:
            self._give_up()
        return sorted(there, key=self._rank)

    def _train(self, setting: Setting, stop: int) -> Outcome:
        done = self.outcomes.get(setting)
        if done is None or (done.step < stop and not done.finished):
            done = self.outcomes[setting] = self.try_(setting, stop)
            said = "diverged" if done.diverged else f"validation loss {done.val['loss']:.4f}"
            self.watch.show(f"rate {setting.rate:g}, decay {setting.weight_decay:g}: {said} by step {done.step}")
        return done

    def _rank(self, setting: Setting) -> tuple[float, float, float]:
        outcome = self.outcomes[setting]
        early = self.plan.fresh and not outcome.finished
        loss = outcome.history[-1]["loss"] if early else outcome.val["loss"]
        return loss, setting.rate, setting.weight_decay

    def _give_up(self) -> None:
        lowest = min(setting.rate for setting in self.outcomes)
        remedy = f"Take a lower --rate: {lowest / 10:.1g}, say"
        raise TrainingError("the loss is no number any more, at every rate", where="search over rates", remedy=remedy)

    def chosen(self, best: Setting, notes: list[str]) -> Searched:
        """Put together what was found."""
        rates = sorted({setting.rate for setting in self.outcomes})
        if len(rates) > 1 and best.rate in (rates[0], rates[-1]):
            side = "lowest" if best.rate == rates[0] else "highest"
            notes = [*notes, f"the best rate, {best.rate:g}, is the {side} that was tried: others may be better"]
        rows = [_row(setting, outcome, setting == best) for setting, outcome in self.outcomes.items()]
        return Searched(best, self.outcomes[best], rows, notes)


def _row(setting: Setting, outcome: Outcome, chosen: bool) -> dict[str, Any]:
    """Put a trial into a row: what it was allowed, and what came of it."""
    return {
        "rate": setting.rate,
        "weight_decay": setting.weight_decay,
        "steps": outcome.step,
        "best_step": None if outcome.diverged else outcome.best_step,
        "loss": None if outcome.diverged else outcome.val["loss"],
        "accuracy": None if outcome.diverged else outcome.val["accuracy"],
        "seconds": outcome.seconds,
        "diverged": outcome.diverged,
        "chosen": chosen,
    }
