"""What the measurements share: programs timed from outside, what others took of the machine meanwhile, medians."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from extract.spec import available_cores

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 1800
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Not inherited: everyone runs with as many threads as it takes by itself."""

Numbers = dict[str, Any]


class Skipped(Exception):  # noqa: N818 no fault
    """What a measurement needs cannot be had on this machine."""


class ProgramError(Exception):
    """A program that was to be measured failed; its last words."""


@dataclass(frozen=True)
class Place:
    """Where a measurement works: the folder that is kept between runs, the data of $OFFSHELF_DATA, and how long."""

    work: Path
    data: Path
    quick: bool = False
    thingsvision: Path | None = None
    """A Python that has thingsvision."""

    def share(self, n: int) -> int:
        """Return a number of images, or a fifth of it where there is no time, but two batches at least."""
        return min(n, max(64, n // 5)) if self.quick else n

    def rounds(self, n: int) -> int:
        """Return a number of interleaved rounds."""
        return 1 if self.quick else n


@dataclass
class Watch:
    """Seconds on the clock, and the cores that others kept busy meanwhile."""

    seconds: float = 0.0
    foreign_cores: float = 0.0


@contextmanager
def watched() -> Iterator[Watch]:
    """Time a block. What it and its children took is taken off what the machine did; the rest was foreign."""
    watch, busy, own, began = Watch(), _busy_s(), _own_s(), time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - began
    watch.foreign_cores = max(0.0, (_busy_s() - busy - _own_s() + own) / watch.seconds)


def _busy_s() -> float:
    """CPU seconds of all cores since the start, those stolen by the host included (proc(5): guest is in user)."""
    user, nice, system, _, _, irq, soft, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """CPU seconds of this process and of the children that have ended."""
    return sum(os.times()[:4])


def timed(command: Sequence[str], env: Mapping[str, str] | None = None) -> Numbers:
    """Run a program that answers in JSON: -> its answer, `whole_s` from outside and `foreign_cores`."""
    inherited = {name: value for name, value in os.environ.items() if name not in THREADS}
    around = {**inherited, "PYTHONWARNINGS": "ignore", **(env or {})}
    with watched() as watch:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=around, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as late:
            raise ProgramError(f"not done after {TIMEOUT_S} s") from late
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise ProgramError(f"code {done.returncode}: {said[-1] if said else ''}")
    return {**_answer(done.stdout), "whole_s": watch.seconds, "foreign_cores": watch.foreign_cores}


def _answer(said: str) -> Numbers:
    """Read the JSON that is all that a program said, or its last line."""
    said = said.strip()
    return json.loads(said if said.startswith("{") else said.splitlines()[-1])


def program(name: str, *arguments: object, python: Path | str = sys.executable) -> list[str]:
    """Return the command for a module of this package."""
    return [str(python), "-m", f"benchmarks.extract.{name}", *map(str, arguments)]


def ours(place: Place, data: Path, *options: object, cache: Path | None = None) -> Numbers:
    """Run `extract` on a folder into a cache of its own that does not stay, or into the one given."""
    with tempfile.TemporaryDirectory(dir=place.work, prefix="cache-") as temporary:
        where = ["--cache", str(cache or temporary), "--json"]
        return timed([sys.executable, "pipeline.py", "extract", str(data), *map(str, options), *where])


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def spread(values: Sequence[float], digits: int = 3) -> Numbers:
    """Return the median with the least and the most."""
    found = {"value": middle(values), "low": min(values), "high": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def ratios(above: Sequence[float], below: Sequence[float]) -> Numbers:
    """Compare round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


@dataclass
class Goal:
    """A figure of the issue, what was measured, and whether that reaches it; None where nothing can be said."""

    goal: str
    measured: str
    met: bool | None


def at_least(goal: str, value: float | None, least: float, *, share: bool = False) -> Goal:
    """Compare a ratio, or a share, with the least that it is to be."""
    if value is None:
        return Goal(goal, "not measured", None)
    return Goal(goal, f"{value:.1%}" if share else f"{value:.2f}x", value >= least)


def undisturbed(goals: Iterable[Goal], foreign_cores: Iterable[float]) -> list[Goal]:
    """Return goals as they are, or, where others took more than a tenth of the machine, as not to be told."""
    if (most := max(foreign_cores)) <= CORES / 10:
        return list(goals)
    return [replace(goal, measured=f"{goal.measured} (others took {most:.1f} cores)", met=None) for goal in goals]


@dataclass
class Figures:
    """What one measurement found: a table, what is to be known of it, and the goals that it answers."""

    rows: list[Numbers]
    note: str = ""
    goals: list[Goal] = field(default_factory=list)
    facts: Numbers = field(default_factory=dict)


def emptied(folder: Path) -> Path:
    """Return a folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


CORES = available_cores()
