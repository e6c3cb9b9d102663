"""Fitting beside scikit-learn: the same features, the same folds, in one run.

    python -m benchmarks.fit [NAME...] [--quick] [--write]

Each NAME is one measurement. `--write` puts the figures into `benchmarks/fit.json`, and from there into
`benchmarks/fit.md`. `--quick` takes one round and the smallest size.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.extract.harness import ROOT, Figures, Numbers, Skipped
from benchmarks.fit.logistic import logistic, logistic_large
from benchmarks.fit.report import write_figures
from benchmarks.fit.ridge import ridge
from benchmarks.fit.scale import scale
from benchmarks.fit.whole import whole

MEASUREMENTS: dict[str, Callable[[bool], Figures]] = {
    "logistic": logistic,
    "logistic-large": logistic_large,
    "ridge": ridge,
    "whole": whole,
    "scale": scale,
}
"""By name: whether it is to be quick -> figures."""


def measured(name: str, quick: bool) -> Numbers:
    """Carry out a measurement; one that the machine has no room for says so."""
    began = time.perf_counter()
    try:
        found = asdict(MEASUREMENTS[name](quick))
    except Skipped as reason:
        found = asdict(Figures([], f"Skipped: {reason}.", []))
    return {"name": name, "quick": quick, **found, "seconds": round(time.perf_counter() - began, 1)}


def main() -> int:
    """Measure what is asked for, all of it by default; 1 where a goal is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="one round, the smallest size")
    parser.add_argument("--write", action="store_true", help="write the figures beside this folder")
    options = parser.parse_args()
    if strange := set(options.names) - MEASUREMENTS.keys():
        parser.error(f"no measurement {', '.join(sorted(strange))}")
    lines = []
    for name in options.names or MEASUREMENTS:
        lines.append(measured(name, options.quick))
        print(json.dumps(lines[-1]), flush=True)
        if options.write:
            write_figures(lines[-1:], Path(ROOT) / "benchmarks", tuple(MEASUREMENTS))
    return int(any(goal["met"] is False for line in lines for goal in line["goals"]))


if __name__ == "__main__":
    sys.exit(main())
