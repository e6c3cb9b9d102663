"""Every strategy on every cell: what was run before is not run again, and what there is no time for is left out."""

from collections.abc import Iterable, Iterator, Mapping

from benchmarks.cells.outcomes import Outcome, kept_outcomes, note_load, read_run
from benchmarks.cells.sets import NETWORKS, SMALL, Cell, Workplace, all_cells, extracted
from benchmarks.extract.harness import watched
from classify.fit import fit
from classify.spec import FitSpec
from classify.tuning import LINEAR, STRATEGIES, TuneSpec

STEPS = dict.fromkeys(STRATEGIES, 300) | {"scratch": 600}
"""Of 32 images or more, for every strategy alike but for the one that has nothing to begin with."""
TUNES = {name: TuneSpec(steps=steps, folds=0, seeds=1) for name, steps in STEPS.items()}
EVERY = {LINEAR: TuneSpec(), **TUNES}
"""All that there is to choose from, from the cheapest, and how it is trained."""
SAME_BUDGET = 0.2
"""Of a budget: by how much that of a run may differ, as what everything took is never twice the same."""

Outcomes = dict[str, Outcome]


class RunError(Exception):
    """Runs of one cell that cannot be compared."""


def whole_cells(place: Workplace, quick: bool) -> Iterator[tuple[Cell, Workplace, Outcomes]]:
    """Run every strategy on one cell after the other, or on the small ones: those of which all is there.

    Each comes with where more may be run on it: nowhere, if it is large and this is to be quick.
    """
    known = kept_outcomes("finetune", "strategies")
    for cell in all_cells():
        room = place.closed() if quick and cell.per_class > SMALL else place
        found = exhaustive(cell, room, known)
        if found.keys() == EVERY.keys():
            yield cell, room, found


def exhaustive(cell: Cell, place: Workplace, known: Mapping[str, Outcomes]) -> Outcomes:
    """Run every strategy on one cell as far as there is time: -> what they came to, by strategy, the cheapest first."""
    fitting = {name: each for name, each in known.get(cell.name, {}).items() if each.steps == STEPS.get(name)}
    asked = {name: outcome(cell, name, place, fitting.get(name), tune) for name, tune in EVERY.items()}
    found = {name: each for name, each in asked.items() if each}
    check_alike(cell, found)
    check_steps(cell, found)
    return found


def outcome(cell: Cell, name: str, place: Workplace, kept: Outcome | None, tune: TuneSpec) -> Outcome | None:
    """Return what a run came to: one that is there, one that was kept, or, if there is time, a new one.

    One that had another budget is neither.
    """
    folder, group = place.run(cell, name), cell.images.group
    there = read_run(folder, group) if (folder / "metrics.json").is_file() else None
    for each in (there, kept):
        if each and had_budget(each, tune.budget_s):
            return each
    if place.is_over():
        return None
    features = extracted(cell, place)
    with watched() as watch:
        fit(FitSpec(features, cache=place.cache, strategy=name, tune=tune, out=folder, duplicates="off"))
    note_load(folder, watch.foreign_cores)
    return read_run(folder, group)


def had_budget(run: Outcome, budget_s: float | None) -> bool:
    """Say whether a run had about the budget that is asked for, if one is."""
    had_s = run.told.get("budget_s")
    return budget_s is None or (had_s is not None and abs(had_s - budget_s) <= SAME_BUDGET * budget_s)


def check_alike(cell: Cell, found: Outcomes) -> None:
    """Raise RunError unless all were trained and tested on as many images."""
    if len({(each.n_train, len(each.right)) for each in found.values()}) > 1:
        raise RunError(f"{cell.name}: its runs are on different images; remove those that are older")


def check_steps(cell: Cell, found: Outcomes) -> None:
    """Raise RunError unless every strategy was trained in as many steps as are asked for."""
    if strange := [name for name, each in found.items() if each.steps != STEPS.get(name)]:
        raise RunError(f"{cell.name}: {', '.join(strange)} took other numbers of steps; remove what is older")


def missing(there: Iterable[Cell]) -> str:
    """Say which cells are not run yet, for a note; "" where none is."""
    done, said = set(there), []
    for network in NETWORKS:
        cells = [cell for cell in all_cells() if cell.network == network]
        absent = [f"{cell.images.name}-{cell.per_class}" for cell in cells if cell not in done]
        if absent:
            said.append(f"{'any' if len(absent) == len(cells) else ', '.join(absent)} of {network}")
    return f" Not run yet: {'; '.join(said)}. The same command goes on with them." if said else ""
