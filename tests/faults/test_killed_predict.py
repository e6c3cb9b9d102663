"""Predictions that are killed in the middle of their rows, and gone on with."""

import csv
import random
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import pipeline
from tests.tiny_bundle import make_run

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
IMAGES = 40

# The command, which waits to be killed behind so many rows: each is on the disk before the next is made.
COMMAND = """
import sys, time
from classify import predict
import pipeline
real, left = predict.answer_of, iter(range(int(sys.argv.pop(1)), -1, -1))
def answer(*args):
    if next(left, None) == 0:
        print("there", flush=True)
        time.sleep(600)
    return real(*args)
predict.answer_of = answer
pipeline.main(sys.argv[1:])
"""


def arguments(run: Path, out: Path) -> list[str]:
    options = ["-o", str(out), "--resume", "--device", "cpu", "-j", "1", "-b", "1"]
    return ["predict", str(run), str(run.parent / "data"), *options]


def begun(run: Path, out: Path, stop: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(stop), *arguments(run, out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_predictions_that_were_killed_get_done_and_lose_no_row(tmp_path, form):
    run = make_run(tmp_path, per_class=IMAGES // 2)
    out, n = tmp_path / f"answers.{form}", random.Random(form).randint(1, IMAGES - 1)
    part = out.with_name(f"{out.name}.part")
    process = begun(run, out, n)
    assert process.stdout is not None
    there = process.stdout.readline()
    process.kill()
    _, wrong = process.communicate()
    assert there == "there\n", wrong
    assert len(part.read_text().splitlines()) == n + (form == "csv")
    assert not out.exists()
    done = CliRunner().invoke(pipeline.main, arguments(run, out))
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    assert f"has {n} rows already; it goes on behind them" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["cache", "data", "run", out.name])
    lines = out.read_text().splitlines()
    names = [row["id"] for row in csv.DictReader(lines)] if form == "csv" else [line.split('"')[3] for line in lines]
    assert names == sorted(str(path) for path in (tmp_path / "data").rglob("*.*"))
    assert len(names) == IMAGES
