import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.finetune.budget import FEWEST_STEPS, cost, fit_budget
from classify.finetune.plan import Plan, Setting
from extract.errors import FitError


def plan_of(n_rates=3, steps=900, **fields):
    settings = tuple(Setting(float(rate), 0.0) for rate in range(1, n_rates + 1))
    return Plan("auto", steps, 32, settings, evaluate_every=steps // 10, **fields)


def test_the_cost_of_one_setting_is_that_of_its_trainings():
    # 3 trainings of 900 steps; each looks before its first step and then 10 times; one look is set aside for a search
    assert cost(plan_of(1), 1.0, 0.0, 2) == 2700
    assert cost(plan_of(1), 0.0, 1.0, 2) == 3 * 11 + 1


def test_a_search_costs_a_ninth_for_each_setting_and_one_more_up_to_a_look():
    assert cost(plan_of(3), 1.0, 0.0, 0) == 4 * 180 + 720


def test_a_plan_that_fits_is_left_alone():
    plan = plan_of()
    assert fit_budget(plan, 1.0, 0.0, 1440.0, 0) == (plan, [])


def test_a_plan_that_does_not_is_made_to_fit():
    plan = plan_of(warmup_steps=45)
    short, notes = fit_budget(plan, 1.0, 1.0, 1000.0, 2)
    assert cost(short, 1.0, 1.0, 2) <= 1000
    assert cost(short, 1.0, 1.0, 2) > 990
    assert short.warmup_steps == round(short.steps / 20)
    assert notes == [f"{short.steps} steps instead of 900, for which 1000 s would not do: about 3282 s"]


def test_a_budget_for_hardly_a_step_is_refused_with_what_would_do():
    with pytest.raises(FitError, match=r"budget of 10 s: .* about 180 s with 50 steps .*--budget 198s") as caught:
        fit_budget(plan_of(), 1.0, 0.0, 10.0, 2)
    assert "--seeds 1" in caught.value.remedy


def test_a_training_that_was_asked_to_be_short_may_be():
    plan = plan_of(1, steps=20)
    assert fit_budget(plan, 1.0, 0.0, 20.0, 0) == (plan, [])
    with pytest.raises(FitError, match="20 steps"):
        fit_budget(plan, 1.0, 0.0, 19.0, 0)


@given(
    st.integers(1, 20), st.integers(60, 5000), st.floats(0.01, 10), st.floats(0, 10), st.integers(0, 5),
    st.floats(0.001, 1.2),
)  # fmt: skip
def test_whatever_is_planned_is_within_the_budget(n_rates, steps, per_step, per_look, n_trainings, share):
    plan = plan_of(n_rates, steps, warmup_steps=steps // 20)
    budget = share * cost(plan, per_step, per_look, n_trainings)
    try:
        short, notes = fit_budget(plan, per_step, per_look, budget, n_trainings)
    except FitError:
        return
    assert cost(short, per_step, per_look, n_trainings) <= budget
    assert FEWEST_STEPS <= short.steps <= steps
    assert bool(notes) == (short != plan)
