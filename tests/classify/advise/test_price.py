from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.advise.price import Pace, Price, settle
from classify.finetune.budget import FEWEST_STEPS, cost
from classify.finetune.plan import Plan, Setting, shorten

PLAN = Plan("auto", 300, 32, (Setting(1e-3, 0.0), Setting(3e-3, 0.0)), evaluate_every=20)
FEWEST = 100
PACES = st.tuples(st.floats(1e-4, 3), st.floats(0, 2))


@given(PACES, st.floats(0, 1e4), st.floats(1e-3, 1e5), st.integers(1, 5), st.integers(1, 3))
def test_what_is_settled_fits_and_nothing_more_would(pace, kept_s, left_s, n_folds, repeats):
    price = Price(PLAN, pace, repeats, kept_s)
    fits, steps, folds = settle(price, left_s / 2, left_s, n_folds)
    assert fits == (price.seconds(FEWEST, 1) <= left_s)
    if not fits:
        assert (steps, folds) == (PLAN.steps, 1)
        return
    assert FEWEST <= steps <= PLAN.steps
    assert price.seconds(steps, folds) <= (left_s if steps == FEWEST else left_s / 2)
    if folds < n_folds:  # not even in the fewest steps
        assert price.seconds(FEWEST, folds + 1) > left_s
    if steps < PLAN.steps:
        assert price.seconds(PLAN.steps, folds) > left_s / 2
        assert price.seconds(steps + 1, folds) > left_s / 2


@given(PACES, st.floats(0, 1e4), st.integers(FEWEST, 300), st.integers(1, 5), st.integers(1, 3))
def test_a_price_has_the_last_trainings_of_one_way_in_it(pace: Pace, kept_s, steps, folds, repeats):
    plan, price = shorten(PLAN, steps), Price(PLAN, pace, repeats, kept_s)
    trained = cost(plan, *pace, folds - 1)
    assert price.seconds(steps, folds) == pytest.approx(trained + max(price.last_s(steps), kept_s))
    assert price.last_s(steps) == pytest.approx(repeats * train_s(plan, pace))


def train_s(plan: Plan, pace: Pace) -> float:
    """Count the steps and the looks of one training, one of these before it begins."""
    return plan.steps * pace[0] + (1 + -(-plan.steps // plan.evaluate_every)) * pace[1]


@given(st.lists(st.tuples(PACES, st.booleans()), min_size=1, max_size=4), st.floats(1.0, 1e4), st.integers(1, 5))
def test_after_all_that_was_tried_there_is_time_for_the_last_training_of_what_was_taken(rungs, left_s, n_folds):
    kept_s = 0.0
    for number, (pace, taken) in enumerate(rungs):
        price = Price(PLAN, pace, 1, kept_s)
        fits, steps, folds = settle(price, left_s / (len(rungs) - number), left_s, n_folds)
        if fits:
            left_s -= cost(shorten(PLAN, steps), *pace, folds - 1)
            kept_s = price.last_s(steps) if taken else kept_s
    assert kept_s <= left_s + 1e-6


def test_a_share_is_enough_where_all_folds_fit_into_it_and_else_the_fewest_steps_take_more():
    price = Price(PLAN, (1.0, 0.0), 1, 0.0)
    least, most = price.seconds(FEWEST, 3), price.seconds(300, 3)
    assert settle(price, most, 2 * most, 3) == (True, 300, 3)
    assert settle(price, least, 2 * most, 3) == (True, FEWEST, 3)
    assert settle(price, least - 1, 2 * most, 3) == (True, FEWEST, 3)
    assert settle(price, least - 2, least - 1, 3)[2] == 2


def test_a_plan_of_few_steps_is_not_shortened():
    short = replace(PLAN, steps=FEWEST_STEPS - 1)
    assert settle(Price(short, (1.0, 0.0), 1, 0.0), 10.0, 10.0, 3) == (False, FEWEST_STEPS - 1, 1)
    assert settle(Price(short, (0.01, 0.0), 1, 0.0), 10.0, 10.0, 3) == (True, FEWEST_STEPS - 1, 3)
