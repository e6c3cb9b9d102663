"""Extraction beside what others do on the same files, and beside the limit of the machine.

    python -m benchmarks.extract [NAME...] [--quick] [--write]

Each NAME is one measurement; on a machine with two cores all of them take some 35 minutes. `--write` puts the
figures into `benchmarks/extract.json`, and from there into `benchmarks/extract.md` and the plots of `docs/figures`.
`--quick` takes a fifth of the images, one round, and resnet18 alone where no NAME is given. The photos, and an
environment for thingsvision, are made once in a folder that stays (`--work`).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.extract.equal import equal
from benchmarks.extract.gpu import gpu
from benchmarks.extract.harness import ROOT, Figures, Numbers, Place, ProgramError, Skipped, emptied
from benchmarks.extract.plot import write_plots
from benchmarks.extract.race import TRACKS, race
from benchmarks.extract.report import write_figures
from benchmarks.extract.startup import startup
from benchmarks.extract.taps import taps, views
from benchmarks.image_sets import data_folder

MEASUREMENTS: dict[str, Callable[[Place], Figures]] = {
    **{name: partial(race, name) for name in TRACKS},
    "taps": taps,
    "views": views,
    "startup": startup,
    "equal": equal,
    "gpu": gpu,
}
QUICK = ("resnet18",)


def measured(name: str, place: Place) -> Numbers:
    """Carry out a measurement; one that fails says why, and the others go on."""
    began = time.perf_counter()
    try:
        found = asdict(MEASUREMENTS[name](place))
    except Skipped as reason:
        found = {"skipped": str(reason)}
    except ProgramError as error:
        found = {"error": str(error)}
    return {"name": name, "quick": place.quick, **found, "seconds": round(time.perf_counter() - began, 1)}


def main() -> int:
    """Measure what is asked for, all of it by default; 1 where a goal is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extract", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="a fifth of the images, one round")
    parser.add_argument("--write", action="store_true", help="write the figures beside this folder, and the plots")
    parser.add_argument("--data", type=Path, default=data_folder(), help="holds hymenoptera.tar and weights/")
    work = Path(tempfile.gettempdir()) / "offshelf-extract"
    parser.add_argument("--work", type=Path, default=work, help="keeps photos between runs  [default: %(default)s]")
    parser.add_argument("--thingsvision", type=Path, help="a Python that has it, instead of installing it")
    options = parser.parse_args()
    if strange := set(options.names) - MEASUREMENTS.keys():
        parser.error(f"no measurement {', '.join(sorted(strange))}")
    if not (options.data / "hymenoptera.tar").is_file():
        parser.error(f"no hymenoptera.tar in {options.data}: give --data DIR, or set OFFSHELF_DATA")
    work = options.work.absolute()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(emptied(work / "inductor"))  # what is compiled once is cold once
    place = Place(work, options.data.absolute(), options.quick, options.thingsvision)
    lines = []
    for name in options.names or (QUICK if options.quick else MEASUREMENTS):
        lines.append(measured(name, place))
        print(json.dumps(lines[-1]), flush=True)
        if options.write:
            write_plots(write_figures(lines[-1:], ROOT / "benchmarks"), ROOT / "docs" / "figures")
    return int(any(goal["met"] is False for line in lines for goal in line.get("goals", ())))


if __name__ == "__main__":
    sys.exit(main())
