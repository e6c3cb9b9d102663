"""Extractions by `--engine local` and `--engine ray`, timed from outside: start, pace, one actor and two."""

import tempfile
from pathlib import Path

from benchmarks.engines.kin import Kin
from benchmarks.extract.harness import Figures, Numbers, Place, at_least, middle, ours, ratios, spread, undisturbed
from benchmarks.image_sets import data_folder
from tests.tiny import picture

N, QUICK_N, ROUNDS = 4096, 2048, 3
SIZE_PX = (160, 120)
LOCAL, SAME, ONE, TWO = "local", "ray, 1 actor of 2 CPUs", "ray, 1 actor of 1 CPU", "ray, 2 actors of 1 CPU"
WAYS = {
    LOCAL: (),
    SAME: ("--engine", "ray", "--actors", 1, "--cpus-per-actor", 2),
    ONE: ("--engine", "ray", "--actors", 1, "--cpus-per-actor", 1),
    TWO: ("--engine", "ray", "--actors", 2, "--cpus-per-actor", 1),
}
COMMON = ("-m", "builtin", "--weights", "none", "--device", "cpu", "--compile", "none")
PACE, SCALING = 0.9, 1.6


def engines(quick: bool) -> Figures:
    """Time whole commands in interleaved rounds; each of them computes all images into a cache of its own."""
    n = QUICK_N if quick else N
    with tempfile.TemporaryDirectory(prefix="engines-") as temporary:
        place = Place(Path(temporary), data_folder(), quick)
        folder = _images(place.work / "images", n)
        rounds = [{way: _run(place, folder, way) for way in WAYS} for _ in range(place.rounds(ROUNDS))]
    paces = {way: [each[way]["images_per_s"] for each in rounds] for way in WAYS}
    rows = [_row(way, [each[way] for each in rounds], paces, n) for way in WAYS]
    pace, scaling = (ratios(paces[way], paces[base])["value"] for way, base in ((SAME, LOCAL), (TWO, ONE)))
    goals = [
        at_least(f"ray with all CPUs of the machine, start apart: >= {PACE:g}x of local", pace, PACE),
        at_least(f"two actors of one CPU: >= {SCALING:g}x of one", scaling, SCALING),
    ]
    note = (
        f"{n:,} JPEGs of {SIZE_PX[0]} x {SIZE_PX[1]}, shards of 1,024 rows, the built-in network with random weights. "
        "Start: what a command takes but for the time from the first image to the last shard on disk; of Ray it holds "
        "its processes, their end, and the loading of the network in the actors."
    )
    foreign = [run["foreign_cores"] for each in rounds for run in each.values()]
    return Figures(rows, note, undisturbed(goals, foreign))


def _images(folder: Path, n: int) -> Path:
    folder.mkdir()
    for seed in range(n):
        picture(seed, SIZE_PX).save(folder / f"{seed:05}.jpg", quality=90)
    return folder


def _run(place: Place, folder: Path, way: str) -> Numbers:
    """Run one command. What it left running, and nobody waited for, is no other's: Ray's processes."""
    with Kin() as kin:
        run = ours(place, folder, *COMMON, *WAYS[way])
    return {**run, "foreign_cores": max(0.0, run["foreign_cores"] - kin.unwaited_s / run["whole_s"])}


def _row(way: str, runs: list[Numbers], paces: dict[str, list[float]], n: int) -> Numbers:
    """Say of one way what a command, its start, and a thousand images take, and what that is more than locally."""
    more = [1000 / here - 1000 / there for here, there in zip(paces[way], paces[LOCAL], strict=True)]
    return {
        "way": way,
        "whole s": spread([run["whole_s"] for run in runs], 1),
        "start s": spread([run["whole_s"] - n / run["images_per_s"] for run in runs], 1),
        "images/s": spread(paces[way], 1),
        "s more per 1,000": round(middle(more), 2),
        "others' cores": round(max(run["foreign_cores"] for run in runs), 1),
    }
