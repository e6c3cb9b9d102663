"""Which learning rate: all are tried for a while, the best for longer, the best of those to the end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from classify.finetune.job import Outcome
from classify.finetune.plan import Plan, Setting
from extract.progress import Watch

Try = Callable[[Setting, int], Outcome]
"""Trains with a setting up to a step, going on from where the same setting stood."""


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search found: the best setting, its training run to the end, every trial, and what is worth saying."""

    best: Setting
    outcome: Outcome
    trials: list[dict[str, Any]]
    notes: list[str]


def search(try_: Try, plan: Plan, watch: Watch) -> Searched:
    """Find the setting with the lowest validation loss by successive halving, and train it to the end."""
    raise NotImplementedError
