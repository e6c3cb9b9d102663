"""Which way to train pays: tried from the cheapest up, each where it may gain enough, taken where it surely did.

All answer for images that they were not fitted on, by the folds of the probe, so that two ways are compared image by
image. What is tried and what is not goes into one table, with the reason, what was predicted, and what it took.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.special import ndtr

from classify.advise.prior import TRANSFER_SD, Measured, Prediction, predict, standard_error
from classify.advise.rungs import (
    CHEAP,
    CHEAPEST,
    FAILED,
    LEFT,
    PREVENTED,
    RUNGS,
    TAPS,
    TIME,
    UNLIKELY,
    Answers,
    Foreseen,
    Row,
    Trainer,
)
from classify.evaluate import Z95, draw_resamples, evaluate
from classify.statistics import Comparison, paired
from classify.trials import Task
from classify.tuning import LINEAR
from extract.errors import Interrupted, OffshelfError

WORTH = 0.2
"""The least probability, of a gain worth having and of being taken in the end, for which more time is spent."""


class Ladder:
    """The rungs as far as they have been climbed: `rows` of all, `best` so far, and `answers` of those tried.

    `probe` are its answers out of fold. `barred` says of rungs why they cannot be tried; `transfer_sd` how far the gain
    of one training may be from that of another; `foreseen` what one more layer gains, None where TAPS is barred.

    Where that is taken, it is from then on the probe that trainings are held against (`base`).
    """

    def __init__(
        self,
        task: Task,
        probe: Answers,
        min_gain: float,
        barred: Mapping[str, str],
        transfer_sd: float = TRANSFER_SD,
        foreseen: Foreseen | None = None,
    ) -> None:
        self.foreseen = foreseen
        self.task, self.min_gain, self.barred, self.transfer_sd = task, min_gain, barred, transfer_sd
        self.best = self.base = LINEAR
        self.answers: dict[str, Answers] = {LINEAR: probe}
        self.measured: dict[str, Measured] = {}
        self.error = 1 - self._value(probe)["value"]
        self.rows: list[Row] = []

    def climb(self, trainer: Trainer, *, train: bool = True) -> None:
        """Go up from the probe; without `train`, only so far as predictions and the cheap measurement go."""
        probe = self.answers[LINEAR]
        said = {"tried": True, "accepted": True, "seconds": probe.seconds, "value": self._value(probe)}
        reason = f"the linear probe, the best on {' + '.join(probe.settings['layers'])}"
        self.rows.append(_row(LINEAR, trainer, reason=reason, n=len(probe.at), settings=probe.settings, **said))
        for rung in RUNGS:
            self.rows.append(_row(rung, trainer) | self._step(rung, trainer, train))

    def _step(self, rung: str, trainer: Trainer, train: bool) -> Row:
        """Try a rung, or say why not."""
        if rung in self.barred:
            return {"why": PREVENTED, "reason": self.barred[rung]}
        said = self._measurement(trainer) if rung == CHEAPEST else {}
        prediction = self.predict(rung)
        said["predicted"] = prediction.as_dict(self.min_gain)
        if prediction.above(self.min_gain) < WORTH:
            return said | {"why": UNLIKELY, "reason": self._unlikely(prediction)}
        try:
            return said | self._tried(rung, trainer, train)
        except Interrupted:
            raise
        except OffshelfError as error:  # one way that cannot be gone leaves the others
            return said | {"why": FAILED, "reason": str(error)}

    def give_up(self, error: OffshelfError) -> str:
        """Go back from the best rung, whose last training failed, to the best before it: -> what to warn of."""
        [row] = [row for row in self.rows if row["rung"] == self.best]
        row |= {"why": FAILED, "reason": f"{row['reason']}; its last training failed: {error}"}
        self.best = row["over"]
        said = f"{row['rung']} surely gains over {self.best}, but its last training failed"
        return f"{said}, and the run is that of {self.best}: {error}"

    def predict(self, rung: str) -> Prediction:
        """Predict the gain over the best so far of a way that was not tried, but perhaps measured cheaply."""
        if rung == TAPS and self.foreseen:
            return self.foreseen.gain
        numbers = {name: number for number, name in enumerate(self.measured)}
        asked = numbers.get(CHEAP) if rung == CHEAPEST else None
        return predict(self.error, [*self.measured.values()], numbers.get(self.best), self.transfer_sd, asked)

    def _unlikely(self, prediction: Prediction) -> str:
        p, asked = prediction.above(self.min_gain), points(self.min_gain)
        return (
            f"a gain of more than {asked} over {self.best} has a probability of {p:.0%}, and {WORTH:.0%} are asked for"
        )

    def _measurement(self, trainer: Trainer) -> Row:
        """Measure cheaply where the prior says that it may pay."""
        if self.predict(CHEAPEST).above(self.min_gain) < WORTH:
            return {}
        try:
            found = trainer.measure()
        except Interrupted:
            raise
        except OffshelfError as error:
            found = error.what
        if isinstance(found, str):
            return {"measurement": {"reason": found}}
        over = self.compare(found, self.answers[self.base])
        self.measured[CHEAP] = self._measured(over, found)
        told = {"gain": _interval(over), "n": len(found.at), "seconds": found.seconds, "settings": found.settings}
        return {"measurement": told}

    def _tried(self, rung: str, trainer: Trainer, train: bool) -> Row:
        offer, left_s = trainer.offer(rung, self.best, self._share(rung)), trainer.left_s()
        said = {"projected_s": offer.seconds, "command": trainer.command(rung, offer.tune)}
        if not offer.fits:
            reason = f"{offer.what} would take about {offer.seconds:.0f} s; {left_s:.0f} s are left"
            return said | {"why": TIME, "reason": reason}
        if unshown := self._unshown(rung, offer.tune.folds):
            return said | {"why": UNLIKELY, "reason": unshown}
        if not train:
            return said | {"why": LEFT, "reason": "it may well pay: fit would try it"}
        answers = trainer.train(rung, offer, self._hopeful)
        return said | self._judged(rung, answers) | {"command": trainer.command(rung, offer.tune)}

    def _share(self, rung: str) -> float:
        """Say which share of the time that is left is a rung's: it and those that may come after it get as much."""
        return 1 / sum(each not in self.barred for each in RUNGS[RUNGS.index(rung) :])

    def _unshown(self, rung: str, n_folds: int) -> str:
        """Say why images held out in so few folds would not show even a gain that is there; "" where they may."""
        at = np.concatenate([test for _, test in self.task.folds[:n_folds]])
        n_groups = self._n_alone(at)
        p = self.predict(rung).above(max(self.min_gain, least_shown(len(at), n_groups)))
        held_out = f"{len(at)} images held out" + (", all of one group," if n_groups == 1 else "")
        return f"{held_out} would hardly show that it gains: with a probability of {p:.0%}" if p < WORTH else ""

    def _hopeful(self, answers: Answers, share: float) -> bool:
        return chance(self.compare(answers, self.answers[self.best]), share) >= WORTH

    def _judged(self, rung: str, answers: Answers) -> Row:
        """Take a rung where its gain over the best so far is surely above 0."""
        over, best = self.compare(answers, self.answers[self.best]), self.best
        accepted = over.low > 0
        self.measured.pop(CHEAP, None)
        if accepted:
            self.best, self.answers[rung] = rung, answers
        if rung != TAPS:
            self.measured[rung] = self._measured(self.compare(answers, self.answers[self.base]), answers)
        elif accepted:
            self.base, self.error = rung, 1 - self._value(answers)["value"]
        verdict = "surely above 0" if accepted else "perhaps none"
        reason = f"its gain over {best} is {verdict}: {in_points(_interval(over))} on {len(answers.at)} images held out"
        found = {"value": self._value(answers), "gain": _interval(over), "over": best, "n": len(answers.at)}
        cost = {"seconds": answers.seconds, "settings": answers.settings}
        return {"tried": True, "accepted": accepted, "reason": reason} | found | cost

    def compare(self, new: Answers, old: Answers) -> Comparison:
        """Compare two on the images that both have answered for: new - old, by the metric of the search."""
        task = self.task
        at, mine, theirs = np.intersect1d(new.at, old.at, return_indices=True)
        resamples = draw_resamples(len(at), self._groups(at), task.seed)
        return paired(task.y[at], new.named[mine], old.named[theirs], resamples, task.metric)

    def _groups(self, at: np.ndarray) -> np.ndarray | None:
        return None if self.task.groups is None else self.task.groups[at]

    def _measured(self, over: Comparison, answers: Answers) -> Measured:
        return Measured.on(over.mean, standard_error(over.low, over.high), self._n_alone(answers.at))

    def _n_alone(self, at: np.ndarray) -> int:
        """Count what stands alone among some images: these, or their groups."""
        groups = self._groups(at)
        return len(at) if groups is None else len(np.unique(groups))

    def _value(self, answers: Answers) -> dict[str, float]:
        resamples = draw_resamples(len(answers.at), self._groups(answers.at), self.task.seed)
        return evaluate(self.task.y[answers.at], answers.named, resamples)[self.task.metric]


def least_shown(n: int, n_groups: int) -> float:
    """Return the least gain that can come out surely above 0 on n images held out; 1 where none can.

    Nothing tells two apart better than where the new one errs on no image that the old one has right. Then they differ
    on a share g, the gain, and g > 1.96 sqrt(g (1 - g) / n) where g > 1.96^2 / (n + 1.96^2). One group shows nothing.
    """
    return Z95**2 / (n + Z95**2) if n_groups > 1 else 1.0


def chance(over: Comparison, share: float) -> float:
    """Return the probability that a gain is surely above 0 in the end, by what a share of all images says of it.

    Predictive power (Spiegelhalter, Freedman and Parmar 1994, section 4): with nothing known before, the mean of all is
    normal about that of a share f, with sd s sqrt(1 - f), and has to be above 1.96 s sqrt(f), s its error so far.
    Giving up by it makes no gain look surer than it is.
    """
    error = standard_error(over.low, over.high)
    if error == 0 or share >= 1:
        return float(over.low > 0)
    needed = Z95 * error * math.sqrt(share)
    return float(ndtr((over.mean - needed) / (error * math.sqrt(1 - share))))


def points(share: float) -> str:
    """Write a share in points."""
    value = f"{100 * share:.3g}"
    return f"{value} point" if value == "1" else f"{value} points"


def in_points(found: Mapping[str, Any]) -> str:
    """Write a difference of shares with its interval, in points."""
    value, low, high = (f"{100 * found[end]:+z.1f}" for end in ("value", "low", "high"))
    return f"{value} points ({low} to {high})"


def _row(rung: str, trainer: Trainer, **said: Any) -> Row:
    """Begin the row of a rung: nothing is known of it but its command."""
    unknown = dict.fromkeys(("why", "predicted", "measurement", "projected_s", "seconds", "value", "gain", "over", "n"))
    told = {"rung": rung, "tried": False, "accepted": False, "reason": ""}
    return told | unknown | {"settings": None, "command": trainer.command(rung)} | said


def _interval(over: Comparison) -> dict[str, float]:
    return {"value": over.mean} | {name: value for name, value in asdict(over).items() if name in ("low", "high")}
