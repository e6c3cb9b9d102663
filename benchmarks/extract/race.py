"""Who extracts how fast: the others and ours in interleaved rounds on the same files, and the limit beside them."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.extract import photos
from benchmarks.extract.environment import state_file, thingsvision
from benchmarks.extract.harness import (
    CORES,
    Figures,
    Goal,
    Numbers,
    Place,
    ProgramError,
    Skipped,
    emptied,
    ours,
    program,
    timed,
    undisturbed,
)
from benchmarks.extract.standing import NAIVE, bounds_of, reached, standing

THINGSVISION = "thingsvision_loader"
WHOLE_AT = 2000
"""Images at which the issue compares whole processes."""


@dataclass(frozen=True)
class Track:
    """What is raced on: the network, and how many photos ours, the naive script and the other rivals get."""

    network: str
    ours: int
    naive: int
    rivals: int
    make: Callable[[Place, int], Path] = photos.small
    peak_photos: int = 48
    rounds: int = 2


@dataclass(frozen=True)
class Runner:
    """One that runs: its program, or options of ours with the precision that its limit goes by."""

    name: str
    module: str = ""
    workers: int = 0
    options: tuple[str, ...] = ()
    precision: str = ""

    def photos(self, track: Track) -> int:
        """Return how many photos it gets."""
        return track.ours if self.options else track.naive if self.name == NAIVE else track.rivals

    def run(self, place: Place, track: Track, folder: Path, python: Path | str) -> Numbers:
        """Extract once, all over."""
        if self.options:
            return ours(place, folder, "-m", track.network, "--weights", "none", "--device", "cpu", *self.options)
        out, state = emptied(place.work / "out"), place.work / f"{track.network}.pt"
        options = ("--model", track.network, "--state", state, "--out", out, "--workers", self.workers)
        return timed(program(f"rivals.{self.module}", folder, *options, python=python))


def _ours(name: str, precision: str, compiled: str, *more: str) -> Runner:
    return Runner(name, options=("--precision", precision, "--compile", compiled, *more), precision=precision)


RIVALS = (
    Runner(NAIVE, "naive"),
    Runner(f"naive, {CORES} workers", "naive", CORES),
    Runner(f"timm, {CORES} workers", "timm_loader", CORES),
    Runner("thingsvision", THINGSVISION),
)
OURS = (
    _ours("ours fp32", "fp32", "none"),
    _ours("ours fp32 openvino", "fp32", "openvino"),
    _ours("ours bf16", "bf16", "none"),
    _ours("ours bf16 inductor", "bf16", "inductor"),
    _ours("ours bf16 openvino", "bf16", "openvino"),
)
ALL_OURS = tuple(runner.name for runner in OURS)
SCALED = _ours("ours bf16, scaled decoding", "bf16", "none", "--decoder", "scaled")

TRACKS = {
    "resnet18": Track("resnet18", ours=2000, naive=2000, rivals=320, rounds=3),
    "resnet50": Track("resnet50", ours=240, naive=96, rivals=96),
    "mobilenet_v2": Track("mobilenet_v2", ours=640, naive=192, rivals=192),
    "squeezenet1_1": Track("squeezenet1_1", ours=640, naive=192, rivals=192),
    "large": Track("resnet18", ours=60, naive=60, rivals=60, make=photos.large, peak_photos=4),
}
FIELD = {
    "resnet18": (*RIVALS, *OURS),
    "resnet50": (*RIVALS, *OURS),
    "mobilenet_v2": (*RIVALS, *OURS),
    "squeezenet1_1": tuple(runner for runner in (*RIVALS, *OURS) if runner.module != "timm_loader"),  # timm has none
    # Of two batches, workers decode the second before the first is done: that is no rate.
    "large": (RIVALS[0], OURS[0], OURS[2], OURS[4], SCALED),
}
STEADY = (
    ("fp32", 2.3, ("ours fp32", "ours fp32 openvino")),
    ("bf16 eager", 3.8, ("ours bf16",)),
    ("compiled bf16", 4.5, ("ours bf16 inductor", "ours bf16 openvino")),
)
LIMIT_SHARES = {"resnet18": 0.85, "resnet50": 0.75}


def race(name: str, place: Place) -> Figures:
    """Run all of a field in interleaved rounds: A B C A B C; a ratio is to the naive script of the same round."""
    track = TRACKS[name]
    state_file(track.network, place.work)
    field, python, said = _entered(name, place)
    runs: dict[str, list[Numbers]] = {runner.name: [] for runner in field}
    peaks = []
    for _ in range(place.rounds(track.rounds)):
        peaks.append(timed(program("peaks", track.make(place, place.share(track.ours)), track.peak_photos)))
        for runner in field:
            runs[runner.name].append(_run(runner, place, track, python))
            print(f"  {runner.name}: {runs[runner.name][-1]}", file=sys.stderr, flush=True)
    bounds = bounds_of(track.network, peaks)
    rows = [standing(runner.name, runs, bounds.get(runner.precision)) for runner in field]
    foreign = [each["foreign_cores"]["value"] for each in (*rows, bounds["facts"]) if "foreign_cores" in each]
    goals = undisturbed(_goals(name, rows), foreign)
    return Figures(rows, said, goals, {"network": track.network, **bounds["facts"]})


def _entered(name: str, place: Place) -> tuple[Sequence[Runner], Path | str, str]:
    """Return who runs, the Python of thingsvision, and what is to be said of it."""
    if all(runner.module != THINGSVISION for runner in FIELD[name]):
        return FIELD[name], sys.executable, ""
    try:
        return FIELD[name], thingsvision(place), "thingsvision is the real package, in an environment of its own."
    except Skipped as reason:
        instead = Runner("thingsvision, re-enacted", "reenacted")
        field = [instead if runner.module == THINGSVISION else runner for runner in FIELD[name]]
        return field, sys.executable, f"thingsvision's loop is re-enacted, as it did not install: {reason}."


def _run(runner: Runner, place: Place, track: Track, python: Path | str) -> Numbers:
    n = place.share(runner.photos(track))
    try:
        found = runner.run(
            place, track, track.make(place, n), python if runner.module == THINGSVISION else sys.executable
        )
    except ProgramError as error:
        return {"images": n, "error": str(error)}
    kept = ("images_per_s", "whole_s", "foreign_cores", "stages", "version", "torch")
    return {"images": n} | {name: found[name] for name in kept if name in found}


def _goals(name: str, rows: list[Numbers]) -> Iterator[Goal]:
    """Compare with the figures to reach; those of ratios are set for resnet18 only."""
    by_name = {row["who"]: row for row in rows}
    if name == "resnet18":
        for said, least, who in STEADY:
            yield reached(f"resnet18, {said}: >= {least}x the naive script", by_name, who, "ratio", least)
        n = by_name[NAIVE]["images"]
        goal = f"resnet18, whole process at {WHOLE_AT:,} images: >= 3x the naive script"
        whole = reached(goal, by_name, ALL_OURS, "whole_ratio", 3)
        yield whole if n == WHOLE_AT else Goal(goal, f"{whole.measured} at {n} images", None)
    if name in LIMIT_SHARES:
        least = LIMIT_SHARES[name]
        yield reached(f"{name}: >= {least:.0%} of the limit", by_name, ALL_OURS, "of_limit", least)
