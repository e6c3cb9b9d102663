"""What a fine-tuning will cost, and how many steps a budget pays for."""

from classify.finetune.plan import Plan, shorten
from classify.finetune.search import search_steps
from extract.errors import FitError

FEWEST_STEPS = 50
"""Of a training that is worth the name: a tenth of what BiT-HyperRule takes on a small set."""


def cost(plan: Plan, seconds_per_step: float, seconds_per_look: float, n_trainings: int) -> float:
    """Return the seconds of the search, its winner's training to the end included, and of `n_trainings` more.

    It is an upper bound where every step takes as long: that trainings stop early is not counted on.
    """
    searched = search_steps(plan)
    begun = len(plan.settings) + 1 + n_trainings  # each looks once before its first step
    steps = searched + n_trainings * plan.steps
    looks = begun + searched / plan.evaluate_every + n_trainings * -(-plan.steps // plan.evaluate_every)
    return steps * seconds_per_step + looks * seconds_per_look


def fit_budget(
    plan: Plan, seconds_per_step: float, seconds_per_look: float, budget_s: float, n_trainings: int
) -> tuple[Plan, list[str]]:
    """Shorten a plan until its search and `n_trainings` more fit into `budget_s`: -> the plan, what was changed.

    Raises FitError where the budget is too short for a training that is worth the name, and says how much would do.
    """

    def seconds(steps: int) -> float:
        return cost(shorten(plan, steps), seconds_per_step, seconds_per_look, n_trainings)

    asked, low, high = seconds(plan.steps), min(FEWEST_STEPS, plan.steps), plan.steps
    if asked <= budget_s:
        return plan, []
    if seconds(low) > budget_s:
        raise _too_short(low, seconds(low), budget_s)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if seconds(middle) <= budget_s else (low, middle)
    said = f"{low:,} steps instead of {plan.steps:,}, for which {budget_s:.0f} s would not do: about {asked:.0f} s"
    return shorten(plan, low), [said]


def _too_short(steps: int, needed_s: float, budget_s: float) -> FitError:
    return FitError(
        f"the search and the trainings take about {needed_s:.0f} s with {steps} steps each, the fewest that make sense",
        where=f"budget of {budget_s:.0f} s",
        remedy=f"Take --budget {needed_s * 1.1:.0f}s, one --rate, --seeds 1, or a deeper --cut",
    )
