"""Rules, costs and goals, on made-up cells."""

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.advise import regret
from benchmarks.advise.regret import BUDGET, Told, automatic, choice, everything_s, goals, probe_seconds, row, summary
from benchmarks.advise.rules import RULES
from benchmarks.cells.outcomes import Outcome
from benchmarks.cells.runs import EVERY, RunError
from benchmarks.cells.sets import SETS, Cell, Workplace, all_cells

CIFAR, SPECTROGRAMS, MNIST, _ = SETS
RIGHT = {"linear": 60, "tail": 62, "lp-ft": 70, "full": 66, "scratch": 20}


def outcome(right: int, strategy: str, seconds: float = 20.0, probe_s: float = 2.0) -> Outcome:
    ladder = [
        {"rung": name, "tried": True, "accepted": True, "reason": f"why {name}", "seconds": 1.0}
        for name in ("linear", "tail")
    ]
    told = {"strategy": strategy, "case": "small and similar", "budget_s": 10, "ladder": ladder}
    return Outcome(np.arange(100) < right, None, 50, seconds, probe_s, None, told, 0.0)


def told(right: int, strategy: str = "lp-ft", seconds: float = 20.0) -> Told:
    """A cell whose runs take 18 seconds beyond a probe of 6: 78 in all; `right` and `seconds` are those of auto."""
    found = {name: outcome(RIGHT[name], name, 6.0 if name == "linear" else 20.0) for name in EVERY}
    found["linear"] = outcome(RIGHT["linear"], "linear", 6.0, 6.0)
    return Told(found, outcome(right, strategy, seconds))


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ("table of cases", ("linear", "full", "linear", "full")),
        ("table, from scratch", ("linear", "full", "linear", "scratch")),
        ("always linear", ("linear",) * 4),
        ("always full", ("full",) * 4),
        ("always lp-ft", ("lp-ft",) * 4),
    ],
)
def test_rules_choose_by_the_case(rule: str, chosen: tuple[str, ...]):
    cells = (Cell(CIFAR, 10), Cell(CIFAR, 50), Cell(SPECTROGRAMS, 48), Cell(MNIST, 200))
    assert tuple(RULES[rule](cell) for cell in cells) == chosen


def test_the_probe_costs_once_whoever_ran_it():
    each = told(70)
    assert probe_seconds(each.found) == 6
    assert everything_s(each.found) == 4 * 18 + 6
    assert each.share == pytest.approx((18 + 6) / 78)


def test_a_row_has_what_is_lost_in_points():
    found = row(Cell(CIFAR, 50), told(62, "tail"))
    assert (found["best"], found["auto"]) == ("lp-ft, 70.0", "tail, 62.0")
    assert [found[rule] for rule in RULES] == [4.0, 10.0, 4.0, 0.0, 4.0]
    assert found["auto loses"] == 8.0
    assert 0 < found["surely"] < 8
    assert row(Cell(CIFAR, 50), told(72))["auto loses"] == -2.0


def test_the_summary_is_of_columns_of_numbers():
    rows = [row(Cell(CIFAR, size), told(right)) for size, right in ((10, 70), (50, 62))]
    mean, worst = summary(rows)
    assert (mean["auto loses"], worst["auto loses"], mean["always linear"]) == (4.0, 8.0, 10.0)
    assert "a class" not in mean
    assert summary([]) == []


def test_goals_are_told_when_all_cells_are_there():
    met = {goal.goal: goal.met for goal in goals({cell: told(70) for cell in all_cells()})}
    assert [*met.values()] == [True] * 6
    lost = [goal.met for goal in goals({cell: told(62, seconds=60) for cell in all_cells()})]
    assert lost == [False, False, False, True, False, False]


@pytest.mark.parametrize("foreign_cores", [None, 1.0])
def test_what_a_busy_machine_took_tells_no_cost(foreign_cores):
    each = told(70)
    each.found["tail"] = dataclasses.replace(each.found["tail"], foreign_cores=foreign_cores)
    *others, cost = goals(dict.fromkeys(all_cells(), each))
    assert [goal.met for goal in others] == [True] * 5
    assert cost.met is None


def test_of_some_cells_only_a_loss_that_is_too_high_is_told():
    assert [goal.met for goal in goals({Cell(CIFAR, 10): told(70)})] == [None] * 6
    some = goals({Cell(CIFAR, 10): told(62)})
    assert [goal.met for goal in some] == [None, False, None, None, None, None]
    assert some[1].measured == f"8.0 at worst (1 of {len(all_cells())} cells)"


def test_what_chooses_has_its_share_of_the_cost(monkeypatch: pytest.MonkeyPatch, tmp_path):
    asked = []
    monkeypatch.setattr(regret, "outcome", lambda *given: asked.append(given))
    assert automatic(Cell(CIFAR, 10), told(70).found, Workplace(tmp_path, tmp_path, math.inf), None) is None
    _, name, _, _, tune = asked[0]
    assert (name, tune.budget_s, tune.steps) == ("auto", round(BUDGET * 78 - 6), 300)


def test_what_chooses_may_have_trained_in_as_many_steps_as_its_budget_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path
):
    trained = dataclasses.replace(outcome(70, "full"), steps=120)
    monkeypatch.setattr(regret, "outcome", lambda *_: trained)
    place = Workplace(tmp_path, tmp_path, math.inf)
    assert automatic(Cell(CIFAR, 10), told(70).found, place, None) is trained
    others = {name: dataclasses.replace(each, n_train=51) for name, each in told(70).found.items()}
    with pytest.raises(RunError, match="different images"):
        automatic(Cell(CIFAR, 10), others, place, None)


def test_a_choice_says_why():
    found = choice(Cell(CIFAR, 50), outcome(70, "lp-ft"))
    assert (found["took"], found["why"]) == ("lp-ft", "tail: why tail")
