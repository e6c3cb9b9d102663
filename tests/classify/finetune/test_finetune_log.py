import builtins
import sys
from pathlib import Path

import pytest

from classify.finetune.log import COLUMNS, Log
from extract.errors import OptionError
from extract.progress import Silent


def row(step: int, loss: float | None = 0.5) -> dict:
    return {"step": step, "rate": 0.1, "loss": loss, "val_loss": 0.25, "val_accuracy": 0.75, "seconds": 1.5}


def test_every_look_is_in_the_table_once():
    log = Log(Silent())
    for name, step in (("a", 0), ("a", 4), ("b", 0), ("a", 0), ("a", 4), ("a", 8)):
        log.look(name, row(step, None if step == 0 else 0.5))
    lines = log.csv().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[1:] == [
        "a,0,0.1,,0.25,0.75,1.5",
        "a,4,0.1,0.5,0.25,0.75,1.5",
        "b,0,0.1,,0.25,0.75,1.5",
        "a,8,0.1,0.5,0.25,0.75,1.5",
    ]
    assert log.csv().count("\r") == 0


def test_names_with_commas_are_one_cell():
    log = Log(Silent())
    log.look("fold 1, rate 0.1", row(0))
    assert log.csv().splitlines()[1].startswith('"fold 1, rate 0.1",0,')


def test_it_passes_on_what_it_is_told():
    told = []

    class Watched(Silent):
        def note(self, text: str) -> None:
            told.append(text)

    Log(Watched()).note("words")
    assert told == ["words"]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, round(e.value, 6)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_events_can_be_read_while_it_runs(tmp_path):
    with Log(Silent(), tmp_path) as log:
        log.look("fold 1, rate 0.1", row(0, None))
        log.look("fold 1, rate 0.1", row(4))
        log.look("../../out", row(0))
        assert scalars(tmp_path / "fold-1-rate-0.1") == {
            "rate": [(0, 0.1), (4, 0.1)],
            "loss": [(4, 0.5)],
            "val_loss": [(0, 0.25), (4, 0.25)],
            "val_accuracy": [(0, 0.75), (4, 0.75)],
        }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold-1-rate-0.1", "out"]


def test_a_run_that_goes_on_says_again_what_it_knew_and_events_have_it_once(tmp_path):
    for steps in ((0, 4, 8), (0, 4, 8, 12)):
        with Log(Silent(), tmp_path) as log:
            for step in steps:
                log.look("a", row(step))
    assert [step for step, _ in scalars(tmp_path / "a")["val_loss"]] == [0, 4, 8, 12]


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args):
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real(name, *args)

    for name in [name for name in sys.modules if name.startswith(("torch.utils.tensorboard", "tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionError, match=r'--tensorboard: .*not installed.*pip install "offshelf\[tensorboard\]"$'):
        Log(Silent(), tmp_path)
    assert Log(Silent()).rows == []
