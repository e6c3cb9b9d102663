"""What a rung of the ladder takes, and as many folds and steps of it as there is time for."""

import math
from bisect import bisect_right
from dataclasses import dataclass

from classify.finetune.budget import FEWEST_STEPS, cost
from classify.finetune.plan import Plan, shorten

LEAST = 1 / 3
"""Of the steps of a recipe: fewer would say more of the haste than of the way to train.

On 50 digits a class (MNIST, MobileNetV2 at 64 pixels) all layers trained in 60, 100 and 459 steps named 86, 93 and 98 %
of 100 images held out, the probe 95 %: in 60 steps what pays most looked like a loss.
"""

Pace = tuple[float, float]
"""Seconds of a step, and of a look at the validation part."""


@dataclass(frozen=True)
class Price:
    """What trainings by a plan take at a pace, `repeats` last ones included, or those of the best so far: `kept_s`."""

    plan: Plan
    pace: Pace
    repeats: int
    kept_s: float

    def seconds(self, steps: int, folds: int) -> float:
        """Return the seconds of the search, of all folds and of the last trainings of the better way."""
        plan = self._in(steps)
        own = cost(plan, *self.pace, folds - 1 + self.repeats)
        return max(own, cost(plan, *self.pace, folds - 1) + self.kept_s)

    def last_s(self, steps: int) -> float:
        """Return the seconds of the last trainings."""
        plan = self._in(steps)
        return cost(plan, *self.pace, self.repeats) - cost(plan, *self.pace, 0)

    @property
    def fewest(self) -> int:
        """The fewest steps that say something of the way to train."""
        return min(max(FEWEST_STEPS, math.ceil(LEAST * self.plan.steps)), self.plan.steps)

    def most_steps(self, room_s: float, folds: int) -> int:
        """Return how many steps there is time for, and 0 where not even the fewest fit."""
        if self.seconds(self.plan.steps, folds) <= room_s:
            return self.plan.steps
        steps = range(self.fewest, self.plan.steps)
        fitting = bisect_right(steps, room_s, key=lambda each: self.seconds(each, folds))
        return steps[fitting - 1] if fitting else 0

    def _in(self, steps: int) -> Plan:
        return self.plan if steps == self.plan.steps else shorten(self.plan, steps)


def settle(price: Price, share_s: float, left_s: float, n_folds: int) -> tuple[bool, int, int]:
    """Fit trainings into a share of the time that is left: -> whether there is time for them, steps, folds.

    Rather fewer steps than fewer folds, down to LEAST: what is gained shows only on many images held out. So the fewest
    steps may take more than the share. What does not fit at all has one fold and all steps.
    """
    for folds in range(n_folds, 0, -1):
        if steps := price.most_steps(share_s, folds):
            return True, steps, folds
        if price.seconds(price.fewest, folds) <= left_s:
            return True, price.fewest, folds
    return False, price.plan.steps, 1
