"""Two processes that `torchrun` starts; what they compute is tested elsewhere, with less ado."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from dying_worker import AT
from tiny_story import extract_photos, tune, write_photos

from classify.finetune import together, torchrun

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

ONE = {"folds": 0, "rates": (0.001,), "checkpoint_s": 1e-9}
"""A single training, kept after every step."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    extract_photos(write_photos(tmp_path / "photos"), tmp_path / "cache")
    return tmp_path


def test_a_process_that_is_killed_costs_a_moment_and_changes_nothing(root, monkeypatch):
    expected = tune(root, "tail", **ONE)
    command, said = torchrun._command, []
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(
        torchrun,
        "_command",
        lambda *told: ["dying_worker" if word == torchrun.__name__ else word for word in command(*told)],
    )
    monkeypatch.setattr(together, "_tell", lambda log, line: line and said.append(json.loads(line)))
    found = tune(root, "tail", processes=2, jobs=2, out="both", **ONE)
    told = [word for word, *_ in said]
    first, second = (at for at, word in enumerate(told) if word == "start")
    taken = [each[1] for each in said if each[0] == "advance"]
    assert told[first:second].count("advance") == AT
    assert taken == [1] * AT + [AT] + [1] * (len(taken) - AT - 1), "the second life goes on where the first ended"
    assert sum(taken[AT:]) == found["finetune"]["plan"]["steps"]
    got, alone = found["finetune"], expected["finetune"]
    assert [row["step"] for row in got["history"]] == [row["step"] for row in alone["history"]]
    for row, other in zip(got["history"], alone["history"], strict=True):
        # Sums of float32 in another order.
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
    assert found["test"]["accuracy"] == expected["test"]["accuracy"]
    assert not list((root / "cache" / "photos").glob("*/training/*"))


def test_they_and_the_launcher_end_with_who_started_them(tmp_path, monkeypatch):
    said: list[tuple[object, ...]] = []
    monkeypatch.setattr(torchrun.os, "kill", lambda *told: said.append(told))
    monkeypatch.setattr(torchrun.os, "_exit", lambda code: said.append((code,)))
    with torchrun._locked(tmp_path / "lock"):
        waits = threading.Thread(target=torchrun._die_with, args=[tmp_path / "lock", os.getppid()], daemon=True)
        waits.start()
        assert not said
    waits.join()
    assert said == [(os.getppid(), signal.SIGTERM), (1,)]


def test_of_many_words_those_of_the_error_are_passed_on():
    said = "W1 torch/run.py: starting\n[rank1]: RuntimeError: no such thing\nRoot Cause:\n======\n"
    assert torchrun._wrong(said) == "[rank1]: RuntimeError: no such thing"
    assert torchrun._wrong("") == "no output"
