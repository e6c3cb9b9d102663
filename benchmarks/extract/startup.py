"""How long `extract` takes to see that nothing is new among 100,000 images, and what of it are imports."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.extract.harness import ROOT, Figures, Goal, Numbers, Place, middle, ours, spread, undisturbed, watched
from tests.tiny import picture

IMAGES = 100_000
SIDE_PX = 16
GOAL_S = 10.0
"""What `seconds` of the issue is taken for."""

OPTIONS = ("-m", "builtin", "--device", "cpu", "--resize-size", SIDE_PX, "--crop-size", SIDE_PX)
LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| +(\S+)$")
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "h5py",
    "PIL",
    "rich",
    "safetensors",
    "sklearn",
    "scipy",
    "timm",
    "openvino",
)


def startup(place: Place) -> Figures:
    """Extract tiny images once, then time runs that find nothing to do."""
    n = place.share(IMAGES)
    folder, cache = _images(place.work / f"tiny-{n}", n), place.work / "tiny-cache"
    first = ours(place, folder, *OPTIONS, "--compile", "none", cache=cache)
    again = [ours(place, folder, *OPTIONS, cache=cache) for _ in range(3)]
    if any(run["computed"] or run["rows"] != n for run in again):
        raise RuntimeError(f"not all of {n} rows were there: {again}")
    seconds = [run["whole_s"] for run in again]
    row: Numbers = {
        "images": n,
        "whole_s": spread(seconds, 2),
        "inside_s": spread([run["seconds"] for run in again], 2),
    }
    row |= _imports(folder, cache) | {"foreign_cores": spread([run["foreign_cores"] for run in again], 2)}
    took = middle(seconds)
    met = took <= GOAL_S if n == IMAGES else None
    goal = Goal(f"`extract` on nothing new for {IMAGES:,} files: in seconds", f"{took:.1f} s for {n:,}", met)
    goals = undisturbed([goal], [middle([run["foreign_cores"] for run in again])])
    return Figures([row], NOTE, goals, {"first_run_s": round(first["whole_s"], 1), "first_computed": first["computed"]})


NOTE = f"""\
Tiny JPEGs, all different, and the built-in network. `whole s` is the process, `inside s` what the command says;
`imports` is Python's own account (-X importtime, which slows them a little). Seconds: at most {GOAL_S:.0f}."""


def _images(folder: Path, n: int) -> Path:
    """Make n different images once: one JPEG with a number behind its end, in folders of a thousand."""
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        sample = partial / "sample.jpg"
        picture(0, (SIDE_PX, SIDE_PX)).save(sample)
        content = sample.read_bytes()
        sample.unlink()
        for path in _paths(partial, n):
            path.write_bytes(content + path.name.encode())
        partial.rename(folder)
    return folder


def _paths(folder: Path, n: int) -> Iterator[Path]:
    for number in range(n):
        if number % 1000 == 0:
            (folder / f"{number // 1000:03}").mkdir()
        yield folder / f"{number // 1000:03}" / f"{number:06}.jpg"


def _imports(folder: Path, cache: Path) -> Numbers:
    """Run once more and add up what each import took by itself; of large packages, with all that they import."""
    command = [sys.executable, "-X", "importtime", "pipeline.py", "extract", str(folder), "--cache", str(cache)]
    with watched() as watch:
        done = subprocess.run(
            [*command, *map(str, OPTIONS)],
            cwd=ROOT,
            env={**os.environ},
            capture_output=True,
            text=True,
            check=True,
        )
    lines = [match for line in done.stderr.splitlines() if (match := LINE.match(line))]
    total = sum(int(line[1]) for line in lines) / 1e6
    each = {line[3]: round(int(line[2]) / 1e6, 2) for line in lines if line[3] in PACKAGES}
    return {"imports_s": round(total, 2), "imports_share": round(total / watch.seconds, 2), "imported": each}
