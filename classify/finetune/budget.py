"""What a fine-tuning will cost, and how many steps a budget pays for."""

from classify.finetune.plan import Plan


def cost(plan: Plan, seconds_per_step: float, seconds_per_look: float, n_trainings: int) -> float:
    """Return the seconds of the search, its winner's training to the end included, and of `n_trainings` more."""
    raise NotImplementedError


def fit_budget(
    plan: Plan, seconds_per_step: float, seconds_per_look: float, budget_s: float, n_trainings: int
) -> tuple[Plan, list[str]]:
    """Shorten a plan until its search and `n_trainings` more fit into `budget_s`: -> the plan, what was changed.

    Raises FitError where the budget is too short for a training that is worth the name.
    """
    raise NotImplementedError
