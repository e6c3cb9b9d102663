"""How the learning rate moves over a training, and which blocks train when."""

import math

from classify.finetune.plan import Plan

DROP = 10
"""What the rate is divided by at each of the steps in `drops`."""


def rate_at(step: int, plan: Plan) -> float:
    """Return what multiplies the learning rate in step 0, 1, ... `plan.steps` - 1: above 0, at most 1.

    A linear rise that ends at 1, then half a cosine (Loshchilov and Hutter 2017, without restarts) or steps down. It is
    BiT-HyperRule's `get_lr` one step later: there the first step has rate 0, and is for nothing.
    """
    if step < plan.warmup_steps:
        return (step + 1) / plan.warmup_steps
    return SCHEDULES[plan.schedule](step, plan)


def _cosine(step: int, plan: Plan) -> float:
    done = (step - plan.warmup_steps) / (plan.steps - plan.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def _drops(step: int, plan: Plan) -> float:
    return float(DROP) ** -sum(step >= drop for drop in plan.drops)


SCHEDULES = {"cosine": _cosine, "drops": _drops}


def unfrozen_at(step: int, plan: Plan, n_blocks: int) -> int | None:
    """Say how many blocks, counted from the top, train beside the head in a step; None where all do.

    Gradual unfreezing (Howard and Ruder 2018, ULMFiT): the head alone, then a block more at a time. There a block takes
    an epoch; here all train from half of the steps on, however many they are, as a small set has hundreds of epochs.
    """
    reached = 2 * n_blocks * step // plan.steps
    return reached if plan.gradual and reached < n_blocks else None
