"""A training that is killed at random instants, again and again, until it gets done."""

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import TinyExamples, silent, tiny_job, tiny_network

from classify.finetune.job import Device, Job
from classify.finetune.log import Log
from classify.finetune.loop import train
from extract.progress import Silent

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
STEPS = 120
COMMAND = "import sys, test_training_kill; test_training_kill.work(*sys.argv[1:])"


def job(examples: TinyExamples) -> Job:
    """All that draws or remembers; a checkpoint as often as can be, so that most kills hit one that is written."""
    options = {"optimizer": "adamw", "mixup": 0.4, "ema": 0.75, "class_weight": "balanced", "gradual": True}
    paces = {"rate": 0.01, "steps": STEPS, "evaluate_every": 20, "patience": 100, "checkpoint_s": 1e-9}
    return tiny_job(examples, bn="train", **options, **paces)


class Said(Silent):
    """Says each step as it is done, and behind so many lines waits to be killed: a test that is slow finds it alive."""

    def __init__(self, most: int) -> None:
        self.left = most

    def advance(self, steps: int, bad: int = 0) -> None:
        sys.stdout.write(f"{steps}\n")
        sys.stdout.flush()
        self.left -= 1
        if not self.left:
            sys.stdin.readline()


def work(folder: str, out: str, most: str) -> None:
    """Train in a process of its own, and leave what came of it."""
    examples, log = TinyExamples(), Log(Said(int(most)))
    done = train(tiny_network(bn="train"), examples, job(examples), Device(), Path(folder), log)
    torch.save([done.state, *facts(done)], out)


def facts(done) -> list:
    return [done.best_step, done.val, [{**row, "seconds": 0} for row in done.history]]


def killed(folder: Path, out: Path, *, after: int, wait_s: float) -> tuple[list[int], int]:
    """Train, and kill it at so many steps; return what it went on from, if from anything, its steps, and its code."""
    paths = os.pathsep.join(map(str, (HERE, HERE.parents[2])))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command, pipe = [sys.executable, "-c", COMMAND, str(folder), str(out), str(after + 8)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        lines = [process.stdout.readline() for _ in range(after)]
        time.sleep(wait_s)
        process.kill()
        rest, _ = process.communicate()
    return [int(line) for line in "".join([*lines, rest]).split()], process.returncode


def test_a_training_killed_again_and_again_comes_to_the_same_bits_and_loses_no_more_than_an_interval(tmp_path):
    examples = TinyExamples()
    at_ease = replace(job(examples), checkpoint_s=60)
    expected = train(tiny_network(bn="train"), examples, at_ease, Device(), tmp_path / "whole", silent())
    chance, deaths, done, code = random.Random(0), 0, 0, -9
    while code:
        after, wait_s = chance.randint(25, 50), chance.uniform(0, 0.02)
        steps, code = killed(tmp_path / "folder", tmp_path / "out", after=after, wait_s=wait_s)
        went_on_from = steps[0] if done else 0
        assert done - 1 <= went_on_from <= done, "no more than the step that was not kept yet"
        done = sum(steps)
        deaths += code != 0
    assert deaths >= 2
    assert done == STEPS
    state, *rest = torch.load(tmp_path / "out", weights_only=True)
    assert rest == facts(expected)
    assert state.keys() == expected.state.keys()
    assert all(torch.equal(value, expected.state[name]) for name, value in state.items())
    assert [path.name for path in (tmp_path / "folder").iterdir() if not path.name.startswith(".tmp-")] == [
        "state.ckpt"
    ]
