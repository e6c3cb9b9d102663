import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classify.finetune.plan import Plan, Setting
from classify.finetune.schedule import rate_at, unfrozen_at

RATES = (Setting(0.1, 0.0),)


def plan_of(steps, **fields):
    return Plan("auto", steps, 32, RATES, **fields)


@pytest.mark.parametrize("supports", [[100, 200, 300, 400, 500], [500, 3000, 6000, 9000, 10_000]])
def test_drops_are_bits_rule_one_step_later(supports):
    warmup, *drops, steps = supports
    plan = plan_of(steps, warmup_steps=warmup, drops=tuple(drops), schedule="drops")

    def published(step):
        """Kolesnikov et al. 2020: a linear rise to the first support, then a tenth after each of the others."""
        return step / warmup if step < warmup else 10.0 ** -sum(drop < step for drop in drops)

    assert [rate_at(step, plan) for step in range(steps)] == [published(step + 1) for step in range(steps)]


def test_the_cosine_is_pytorchs():
    plan = plan_of(40)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    for step in range(40):
        assert rate_at(step, plan) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        reference.step()


def test_the_rate_rises_to_its_full_height_and_then_falls():
    rates = [rate_at(step, plan_of(20, warmup_steps=5)) for step in range(20)]
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rates[5] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[5:]))
    assert rates[-1] == 0.5 * (1 + math.cos(math.pi * 14 / 15))


@given(st.integers(1, 300), st.data())
def test_no_step_is_for_nothing(steps, data):
    warmup = data.draw(st.integers(0, steps - 1))
    for schedule, drops in (("cosine", ()), ("drops", (steps // 2, steps // 2 + 1))):
        plan = plan_of(steps, warmup_steps=warmup, schedule=schedule, drops=drops)
        assert all(0 < rate_at(step, plan) <= 1 for step in range(steps))


def test_all_blocks_train_unless_they_are_to_begin_one_after_the_other():
    assert unfrozen_at(0, plan_of(40), 4) is None
    opened = [unfrozen_at(step, plan_of(40, gradual=True), 4) for step in range(40)]
    assert opened == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5 + [None] * 20


@given(st.integers(1, 200), st.integers(0, 30))
def test_blocks_only_ever_open(steps, n_blocks):
    opened = [unfrozen_at(step, plan_of(steps, gradual=True), n_blocks) for step in range(steps)]
    numbers = [n_blocks if each is None else each for each in opened]
    assert numbers == sorted(numbers)
    assert opened[-1] is None or steps == 1
    assert all(each is None or each < n_blocks for each in opened)
