"""The 23 fault tests: what kills, full disks, damage, hostile files and races do to a cache and to a bundle.

    python -m benchmarks.faults [NAME...] [--quick] [--write]

Each test runs in a process and a folder of its own, and prints one line of JSON: what it measured, beside its goal.
`--write` puts the figures into `benchmarks/faults.json` and `benchmarks/faults.md`; `--quick` takes a tenth of the
numbers. Exit code 1 where a test did not pass. `powercut` and a part of `diskfull` need root and loop devices.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults import damage, disks, fuzz, hostile, kills, load, pictures, values
from benchmarks.faults.harness import Numbers, Skipped, results, start
from benchmarks.faults.mounts import unmount_below
from benchmarks.faults.report import write_figures

FOLDER = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Test:
    """One fault test, its goal, and its number of faults here; `share` where that follows from the program.

    `note` says where the number or the goal is not that of the list of fault tests.
    """

    run: Callable[..., Numbers]
    goal: str
    n: int = 0
    note: str = ""
    share: bool = False


TESTS = {
    "crashpoints": Test(
        kills.crashpoints,
        "killed before, inside and after every storage call of a run of 3 shards and of one that adds an image: "
        "0 unreadable, 0 lost, all resumed",
        share=True,
    ),
    "sigkill": Test(kills.sigkill, "4 writers killed at random: 0 lost, 0 bad shards, the rows of a clean run", n=500),
    "powercut": Test(
        disks.powercut, "power cut under a writer (ext4): 0 committed shards or indexes lost, 0 bad", n=100
    ),
    "ioerror": Test(
        kills.ioerror,
        "EIO, ENOSPC, EDQUOT, EFBIG at every storage call: an error that names the path, 0 crashes, all resumed",
        note="exit code 1, as for every error, where the list has 5",
        share=True,
    ),
    "diskfull": Test(
        disks.diskfull,
        "disks of up to 6 MB, and a limit of file size: exit code 1, one line, 0 shards lost, all resumed",
        n=14,
    ),
    "race": Test(
        load.race,
        "8 writers of the same 400 shards, a changing index, 2 readers of all of it: one winner each, 0 errors",
        n=1000,
    ),
    "bitflip": Test(
        damage.bitflip, "1 bit of a shard, index, other file, or bundle: 100 % found, 0 wrong rows read", n=3000
    ),
    "swap": Test(
        damage.swap, "files missing, cut, exchanged: each named or harmless, never zeros; then repaired, or told again"
    ),
    "hostile-h5": Test(
        fuzz.hostile_h5, "all refused unparsed, 0 opens outside the cache, < 2 s each, < 300 MB more memory"
    ),
    "h5fuzz": Test(
        fuzz.h5fuzz,
        "sealed files with changed bytes, half of them with digests made right again: 0 crashes, hangs, wrong rows; "
        "HDF5 asked 0 times",
        note="foreign HDF5 is not imported here, so there is no import to fuzz",
        n=10_000,
    ),
    "imagezoo": Test(
        pictures.imagezoo,
        "odd files and 1,000 damaged ones: 0 crashes, ok + bad = all, every bad row with its reason, <= 10 s, < 1 GB",
        n=1000,
    ),
    "image-meaning": Test(pictures.image_meaning, "encodings of one picture: cosine >= 0.99 to the plain PNG"),
    "decoder-crash": Test(pictures.decoder_crash, "decoders that die or hang at 20 images: exactly 20 bad rows"),
    "manifest": Test(hostile.manifest, "escapes and quirks: refused with the line, or as many rows out as in"),
    "tar": Test(hostile.tar, "hostile members: refused, 0 files created; links and devices passed over"),
    "pickle-canary": Test(
        hostile.pickle_canary, "10 payloads in every loader, told to run pickles: 0 run; scan of the program: 0 hits"
    ),
    "headfuzz": Test(fuzz.headfuzz, "bundles with changed bytes: 0 crashes, 0 accepted with other numbers", n=5000),
    "repro": Test(
        values.repro,
        "batch {1, 3, 8, 32} x workers x lanes {1, 3}, and kill + resume: relative distance <= 1e-5 (fp32, CPU)",
        note="workers {1, 2, 4}: there is no 0",
    ),
    "key": Test(values.key, "every field of the recipe moves the key, no other option; 10 un-keyed drifts refused"),
    "gc": Test(
        kills.gc, "4 writers killed while garbage is collected: 0 rows of an index removed, then 0 temporaries", n=200
    ),
    "sigterm": Test(kills.sigterm, "ends within 10 s, code 143, no row computed again", n=30),
    "sources": Test(pictures.sources, "images changed, times set back: all found", n=100),
    "scale": Test(
        load.scale,
        "rows: scan <= 1 s, index <= 6 s, <= 1 GB; a tenth as many unchanged files: 0 reads",
        note="1 M rows and a tenth of the seconds, where the list has 10 M",
        n=1_000_000,
    ),
    "minibatch": Test(
        load.minibatch,
        "256 random rows of 20,000 x 2,048: at most 3 times as slow as from memory",
        note="not of the list",
        n=200,
    ),
}


def measured(test: Test, folder: Path, *, quick: bool) -> dict[str, Any]:
    """Run a test in this process."""
    given: list[Any] = [max(1, test.n // 10) if quick else test.n] if test.n else []
    given += [0.1 if quick else 1.0] if test.share else []
    try:
        return test.run(folder, *given)
    except Skipped as reason:
        return {"skipped": str(reason), "passed": None}


def carried_out(name: str, *, quick: bool) -> dict[str, Any]:
    """Run a test in a process and a folder of its own, of which nothing stays."""
    test, began = TESTS[name], time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="offshelf-faults-"))  # a TemporaryDirectory would go with the first fork
    try:
        [found] = results(start(lambda: measured(test, folder, quick=quick)))
    except RuntimeError as error:
        found = {"error": str(error), "passed": False}
    finally:
        unmount_below(folder)
        shutil.rmtree(folder)
    seconds = round(time.perf_counter() - began, 1)
    noted = {"note": test.note} if test.note else {}
    return {"test": name, "goal": test.goal, **noted, **found, "seconds": seconds}


def main() -> int:
    """Run the tests that are asked for, all of them by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TESTS)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the numbers")
    parser.add_argument("--write", action="store_true", help="write the figures beside this folder")
    options = parser.parse_args()
    if strange := set(options.names) - TESTS.keys():
        parser.error(f"no test {', '.join(sorted(strange))}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    lines = []
    for name in options.names or TESTS:
        lines.append(carried_out(name, quick=options.quick))
        print(json.dumps(lines[-1]), flush=True)
    if options.write:
        write_figures(lines, FOLDER)
    return int(any(line["passed"] is False for line in lines))


if __name__ == "__main__":
    sys.exit(main())
