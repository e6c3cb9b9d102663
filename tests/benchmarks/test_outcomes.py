"""What runs came to: read from their folders, kept as JSON, and not made again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cells import runs
from benchmarks.cells.outcomes import Outcome, compare, keep, kept_outcomes, read_run
from benchmarks.cells.runs import EVERY, STEPS, RunError, missing, whole_cells
from benchmarks.cells.sets import FIRST, Cell, Workplace, all_cells, speaker
from classify.tuning import LINEAR, TuneSpec

CELLS = all_cells()


def write_run(folder: Path, right: list[int], strategy: str = "full", steps: int | None = None, **more: Any) -> None:
    """Write what is read of a run, its images in no order."""
    folder.mkdir(parents=True)
    trained = {"probe": {"seconds": 2.0}, "finetune": {"plan": {"steps": steps or STEPS.get(strategy)}}}
    known = {"strategy": strategy, "n_train": 20, "seconds": 12.0, "advice": None}
    metrics = known | (trained if strategy != LINEAR else {}) | more
    (folder / "metrics.json").write_text(json.dumps(metrics))
    rows = [f"test/{at}_{'ab'[at % 2]}_0.png,test,x,{'x' if hit else 'y'},0.5" for at, hit in enumerate(right)]
    (folder / "predictions.csv").write_text("\n".join(["id,split,label,predicted,probability", *reversed(rows)]))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A place where the time is up, and a fit would fail."""
    monkeypatch.setattr(runs, "kept_outcomes", lambda *_: {})
    monkeypatch.setattr(runs, "fit", None)
    return Workplace(tmp_path, tmp_path / "work", 0.0)


def all_outcomes(place: Workplace, *, quick: bool) -> dict[Cell, runs.Outcomes]:
    return {cell: found for cell, _, found in whole_cells(place, quick)}


def write_cell(place: Workplace, cell: Cell, *, but: str = "") -> None:
    for name in EVERY:
        if name != but:
            write_run(place.run(cell, name), [1, 0, 1], name)


def test_cells_have_names_of_their_own_and_small_ones_come_first():
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    assert [cell.name for cell in CELLS[:4]] == ["cifar10-10", "mnist-10", "hymenoptera-10", "spectrograms-12"]
    assert CELLS[-1].name == "mnist-200-squeezenet1_1"


def test_a_run_is_read_image_by_image_in_the_order_of_ids(tmp_path: Path):
    write_run(tmp_path / "run", [1, 1, 0, 1], "full")
    found = read_run(tmp_path / "run")
    assert found.right.tolist() == [True, True, False, True]
    assert (found.accuracy, found.n_train, found.seconds, found.probe_s) == (0.75, 20, 12.0, 2.0)
    assert (found.steps, found.groups, found.told) == (300, None, {"strategy": "full"})
    assert (found.foreign_cores, found.undisturbed) == (None, False)
    assert read_run(tmp_path / "run", speaker).groups.tolist() == [0, 1, 0, 1]  # type: ignore[union-attr]


def test_a_run_that_chose_says_why(tmp_path: Path):
    rung = {"rung": "linear", "tried": True, "accepted": True, "reason": "so", "seconds": 3.0, "value": None}
    advice = {"case": {"name": "small and similar"}, "budget_s": 60, "ladder": [rung]}
    advice["recommendation"] = {"rung": "taps"}
    write_run(tmp_path / "run", [1], LINEAR, advice=advice)
    found = read_run(tmp_path / "run")
    assert found.probe_s == 3.0
    assert (found.told["strategy"], found.told["case"]) == ("taps", "small and similar")
    assert found.told["ladder"] == [{name: rung[name] for name in ("rung", "tried", "accepted", "reason", "seconds")}]


@pytest.mark.parametrize("groups", [None, np.array([0, 0, 1, 2, 1, 0, 2, 2, 1, 0])])
def test_what_is_kept_is_what_was_read(tmp_path: Path, groups: np.ndarray | None):
    made = Outcome(np.arange(10) % 3 == 0, groups, 40, 12.5, 2.5, 300, {"strategy": "tail"}, 0.5)
    line = {"name": "strategies", "rows": [{"set": "x"}, {"set": "y", **keep("cifar10-10", {"tail": made})}]}
    (tmp_path / "some.json").write_text(json.dumps({"measurements": [line]}))
    found = kept_outcomes("some", "strategies", tmp_path)["cifar10-10"]["tail"]
    assert found.right.tolist() == made.right.tolist()
    assert (found.groups is None) == (groups is None)
    assert found.as_dict() == made.as_dict()
    assert kept_outcomes("some", "others", tmp_path) == kept_outcomes("none", "strategies", tmp_path) == {}


def test_a_difference_is_that_of_accuracies():
    a, b = (Outcome(np.array(right, bool), None, 4, 1.0, 1.0) for right in ([1, 1, 1, 0], [1, 0, 0, 0]))
    found = compare(a, b)
    assert found.mean == 0.5
    assert found.low <= 0.5 <= found.high


def test_a_cell_is_there_when_all_its_runs_are(place: Workplace):
    write_cell(place, CELLS[0])
    write_cell(place, CELLS[1], but="scratch")
    found = all_outcomes(place, quick=False)
    assert [*found] == [CELLS[0]]
    assert [*found[CELLS[0]]] == [*EVERY]
    assert CELLS[0].name not in missing(found)
    assert all(cell.name in missing(found) for cell in CELLS[1:] if cell.network == FIRST)
    assert "any of squeezenet1_1" in missing(found)
    assert "any of" not in missing(CELLS[1:])
    assert missing(CELLS) == ""


def test_what_was_kept_stands_in_for_a_folder_if_it_was_made_alike(place: Workplace, monkeypatch: pytest.MonkeyPatch):
    write_cell(place, CELLS[0], but="full")
    for steps, there in ((STEPS["full"], True), (STEPS["full"] + 1, False)):
        kept = {CELLS[0].name: {"full": Outcome(np.ones(3, bool), None, 20, 1.0, 1.0, steps)}}
        monkeypatch.setattr(runs, "kept_outcomes", lambda *_, kept=kept: kept)
        assert (CELLS[0] in all_outcomes(place, quick=False)) == there


@pytest.mark.parametrize("odd", [{"steps": 301}, {"n_train": 21}, {"right": [1, 0]}])
def test_runs_that_are_not_alike_are_not_compared(place: Workplace, odd: dict[str, Any]):
    write_cell(place, CELLS[0], but="full")
    write_run(place.run(CELLS[0], "full"), **({"right": [1, 0, 1], "strategy": "full"} | odd))
    with pytest.raises(RunError, match=CELLS[0].name):
        all_outcomes(place, quick=False)


def test_what_is_missing_is_made_while_there_is_time_and_not_of_large_cells_when_quick(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []

    def fit(spec: Any) -> None:
        asked.append(spec.out.name)
        write_run(spec.out, [1], spec.strategy)

    monkeypatch.setattr(runs, "fit", fit)
    monkeypatch.setattr(runs, "extracted", lambda cell, _: cell.name)
    unending = Workplace(place.data, place.folder, float("inf"))
    small = [cell for cell in CELLS if cell.per_class <= runs.SMALL]
    assert [*all_outcomes(unending, quick=True)] == small
    assert asked == [f"{cell.name}-{name}" for cell in small for name in EVERY]
    [outcomes] = [found for cell, found in all_outcomes(place, quick=False).items() if cell == small[0]]
    assert all(each.foreign_cores is not None for each in outcomes.values())
    asked.clear()
    assert [*all_outcomes(unending, quick=False)] == CELLS
    assert len(asked) == (len(CELLS) - len(small)) * len(EVERY)


@pytest.mark.parametrize(
    ("budget_s", "there"), [(None, True), (55.0, True), (70.0, True), (45.0, False), (80.0, False)]
)
def test_a_run_within_another_budget_is_made_again(place: Workplace, budget_s: float | None, there: bool):
    rung = dict.fromkeys(("rung", "tried", "accepted", "reason")) | {"seconds": 3.0}
    advice = {"case": {"name": "small and similar"}, "budget_s": 60, "ladder": [rung]}
    advice["recommendation"] = {"rung": "taps"}
    write_run(place.run(CELLS[0], "auto"), [1], LINEAR, advice=advice)
    found = runs.outcome(CELLS[0], "auto", place, None, TuneSpec(budget_s=budget_s))
    assert (found is not None) == there
    kept = read_run(place.run(CELLS[0], "auto"))
    assert (runs.outcome(CELLS[1], "auto", place, kept, TuneSpec(budget_s=budget_s)) is not None) == there
