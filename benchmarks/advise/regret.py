"""One run in which `fit` chooses beside all that it could have chosen, and beside rules that measure nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.advise.losses import best_of, lost, lost_by_halves, over_sets, surely_lost
from benchmarks.advise.rules import RULES, TO_BEAT
from benchmarks.cells.outcomes import Outcome, keep, kept_outcomes
from benchmarks.cells.runs import STEPS, Outcomes, check_alike, missing, outcome, whole_cells
from benchmarks.cells.sets import Cell, Workplace, all_cells, open_workplace
from benchmarks.extract.harness import Figures, Goal, Numbers
from classify.advise.advice import FEW
from classify.spec import AUTO
from classify.tuning import STRATEGIES, TuneSpec

BUDGET = 0.3
"""Of the cost of everything: what `fit` may take, the probe included. The rest of a third is for writing the run."""
MEAN, WORST, COST = 0.5, 2.0, 1 / 3
"""The goals: what may be lost on average and at worst, in points, and what may be spent, of the cost of everything."""
NOTE = (
    "Points of test accuracy that a choice loses against the best of linear, tail, lp-ft, full and scratch on the same "
    "images. `auto` is `fit --strategy auto` with its budget set to "
    f"{BUDGET:.0%} of what all of these took, in trainings of {STEPS['full']} steps; that one run of it may be better "
    "than the run of the same strategy by itself, and then loses less than nothing; so it may where it takes "
    "`taps`, a linear classifier on one more layer, which none of the five has. As the best is picked on the very "
    "images that it is judged on, even a perfect choice loses something by chance. `surely` is what `auto` loses at "
    "least, with 95 % confidence (multiple comparisons with the best). `by halves` picks the best on one half of the "
    "test images and judges it on the other. Rules: the table of cases fine-tunes (full) from "
    f"{FEW} images a class on and is linear below; `from scratch` where images are many and different too. Cost: "
    "seconds of all five runs, the probe once. Where other work took more of the machine than a tenth, or where that "
    "was not looked at, seconds are rough, and with them what the budget allowed `auto` to try."
)
CHOICES = "What `auto` found of each cell, what it took, and why: the reasons are those of its report."


@dataclass(frozen=True, eq=False)
class Told:
    """All that is known of a cell: what every strategy came to, and the run in which `fit` chose."""

    found: Outcomes
    auto: Outcome

    def by_rule(self, rule: str, cell: Cell) -> Outcome:
        """Return what a rule would have chosen."""
        return self.found[RULES[rule](cell)]

    @property
    def share(self) -> float:
        """Return the cost of letting `fit` choose, of the cost of everything; either has the probe in it once."""
        probe_s = probe_seconds(self.found)
        return (self.auto.seconds - self.auto.probe_s + probe_s) / everything_s(self.found)


def regret(quick: bool) -> Figures:
    """Let `fit` choose on every cell, and tabulate what that and every rule loses."""
    told = gather(quick)
    rows = [row(cell, each) for cell, each in told.items()]
    return Figures(rows + summary(rows), NOTE + missing(told), goals(told) if told else [])


def choices(quick: bool) -> Figures:
    """Tabulate what `fit` chose, and why."""
    told = gather(quick)
    return Figures([choice(cell, each.auto) for cell, each in told.items()], CHOICES + missing(told))


def gather(quick: bool) -> dict[Cell, Told]:
    """Run what is missing, as far as there is time: -> the cells of which all is known."""
    known = kept_outcomes("advise", "regret")
    told: dict[Cell, Told] = {}
    for cell, room, found in whole_cells(open_workplace(), quick):
        if chosen := automatic(cell, found, room, known.get(cell.name, {}).get(AUTO)):
            told[cell] = Told(found, chosen)
    return told


def automatic(cell: Cell, found: Outcomes, place: Workplace, kept: Outcome | None) -> Outcome | None:
    """Let `fit` choose on one cell, within its share of what everything took."""
    budget_s = BUDGET * everything_s(found) - probe_seconds(found)
    tune = TuneSpec(steps=STEPS["full"], seeds=1, budget_s=max(1.0, round(budget_s)))
    chosen = outcome(cell, AUTO, place, kept, tune)
    if chosen:
        check_alike(cell, {**found, AUTO: chosen})
    return chosen


def probe_seconds(found: Mapping[str, Outcome]) -> float:
    """Return what the probe took when nothing of it was cached."""
    return max(each.probe_s for each in found.values())


def everything_s(found: Mapping[str, Outcome]) -> float:
    """Return what trying everything took, with the probe in it once."""
    return probe_seconds(found) + sum(found[name].seconds - found[name].probe_s for name in STRATEGIES)


def row(cell: Cell, told: Told) -> Numbers:
    """Sum up what is lost on a cell: -> one row of the table, in points."""
    best = best_of(told.found)
    named = {"best": said(best, told.found[best]), "auto": said(told.auto.told["strategy"], told.auto)}
    losses = {
        "auto loses": points(lost(told.found, told.auto)),
        "surely": points(surely_lost(told.found, told.auto)),
        "by halves": points(lost_by_halves(told.found, told.auto)),
    }
    rules = {rule: points(lost(told.found, told.by_rule(rule, cell))) for rule in RULES}
    return {
        **cell.head(),
        **named,
        **losses,
        **rules,
        "cost": round(told.share, 3),
        **keep(cell.name, {AUTO: told.auto}),
    }


def said(name: str, found: Outcome) -> str:
    """Name a strategy and what it came to."""
    return f"{name}, {100 * found.accuracy:.1f}"


def points(share: float) -> float:
    """Return points of a share, to a tenth."""
    return round(100 * share, 1) + 0.0  # no -0.0


def summary(rows: list[Numbers]) -> list[Numbers]:
    """Return the mean and the worst of all columns of numbers."""
    columns = [name for name in rows[0] if isinstance(rows[0][name], float)] if rows else []
    sums = {"mean": np.mean, "worst": np.max}
    return [
        {"set": name, **{column: round(float(of([row[column] for row in rows])), 3) for column in columns}}
        for name, of in sums.items()
        if columns
    ]


def goals(told: Mapping[Cell, Told]) -> list[Goal]:
    """Hold what was lost and spent against the goals; before all cells are there only too bad a worst is told."""
    losses = [100 * lost(each.found, each.auto) for each in told.values()]
    mean, worst = float(np.mean(losses)), max(losses)
    n, n_all = len(told), len(all_cells())

    def goal(text: str, measured: str, met: bool, final: bool = False) -> Goal:
        return Goal(text, f"{measured} ({n} of {n_all} cells)", bool(met) if final or n == n_all else None)

    return [
        goal(f"auto loses {MEAN:g} points on average at most", f"{mean:.2f} points", mean <= MEAN),
        goal(f"auto never loses more than {WORST:g} points", f"{worst:.1f} at worst", worst <= WORST, worst > WORST),
        *[goal(f"auto loses less than {rule!r}", *beats(told, rule)) for rule in TO_BEAT],
        quiet(goal("auto costs less than a third of everything", f"{spent(told):.0%}", spent(told) < COST), told),
    ]


def quiet(goal: Goal, told: Mapping[Cell, Told]) -> Goal:
    """Return a goal as it is, or, where not all runs are known to have had the machine to themselves, as not told."""
    runs = [run for each in told.values() for run in (*each.found.values(), each.auto)]
    if all(run.undisturbed for run in runs):
        return goal
    return replace(goal, measured=f"{goal.measured}, others were at work too", met=None)


def spent(told: Mapping[Cell, Told]) -> float:
    """Return the cost of letting `fit` choose on all cells, of that of everything on them."""
    costs = [everything_s(each.found) for each in told.values()]
    return float(np.average([each.share for each in told.values()], weights=costs))


def beats(told: Mapping[Cell, Told], rule: str) -> tuple[str, bool]:
    """Say by how much letting `fit` choose is above a rule; the best in hindsight is the same for both."""
    gains = {cell: each.auto.accuracy - each.by_rule(rule, cell).accuracy for cell, each in told.items()}
    mean, low, high = (100 * value for value in over_sets(gains))
    over = f"{mean:+.1f} points of accuracy over it ({low:+.1f} to {high:+.1f} over sets)"
    return over, bool(np.mean([*gains.values()]) > 0)


def choice(cell: Cell, auto: Outcome) -> Numbers:
    """Sum up what `fit` found and chose on a cell."""
    why = "; ".join(f"{rung['rung']}: {rung['reason']}" for rung in auto.told["ladder"][1:])
    return {**cell.head(), "case as measured": auto.told["case"], "took": auto.told["strategy"], "why": why}
