"""Predictions that are killed in the middle of their rows, and gone on with."""

import csv
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny_bundle import make_run

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
IMAGES = 40

# The command, slowed down so that there is something to interrupt: every row is on the disk before the next is made.
COMMAND = """
import sys, time
from classify import predict
import pipeline
real = predict.answer_of
predict.answer_of = lambda *args: (time.sleep(0.02), real(*args))[1]
print("begun", flush=True)
pipeline.main(sys.argv[1:])
"""


def begun(run: Path, out: Path) -> subprocess.Popen[str]:
    options = ["-o", str(out), "--resume", "--device", "cpu", "-j", "1", "-b", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "predict", str(run), str(run.parent / "data"), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait_for(part: Path, n_bytes: int, process: subprocess.Popen[str]) -> None:
    """Wait until so much is written, or the process has ended."""
    while size_of(part) < n_bytes and process.poll() is None:
        time.sleep(0.002)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_predictions_that_were_killed_get_done_and_lose_no_row(tmp_path, form):
    run = make_run(tmp_path, per_class=IMAGES // 2)
    out, chance = tmp_path / f"answers.{form}", random.Random(form)
    part = out.with_name(f"{out.name}.part")
    process = begun(run, out)
    wait_for(part, chance.randint(100, 1000), process)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    assert size_of(part) > 0
    assert not out.exists()
    process = begun(run, out)
    said, wrong = process.communicate()
    assert (process.returncode, said) == (0, ""), wrong
    assert "rows already; it goes on behind them" in wrong
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["cache", "data", "run", out.name])
    lines = out.read_text().splitlines()
    names = [row["id"] for row in csv.DictReader(lines)] if form == "csv" else [line.split('"')[3] for line in lines]
    assert names == sorted(str(path) for path in (tmp_path / "data").rglob("*.*"))
    assert len(names) == IMAGES
