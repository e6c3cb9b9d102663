"""Runs on hymenoptera that are predicted with and exported."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.extract.harness import ROOT, Place, Skipped, timed
from benchmarks.image_sets import NETWORKS, data_folder, unpack

TAKEN = ("squeezenet1_1", "mobilenet_v2")


@dataclass(frozen=True)
class Run:
    """A run of a network: its folder, the weights file, the images that it was fitted and tested on."""

    network: str
    folder: Path
    weights: Path
    images: Path


@contextmanager
def workplace(quick: bool) -> Iterator[Place]:
    """Make a folder to work in, which goes at the end; raises Skipped where there are no weights and images."""
    data = data_folder()
    if not (data / "weights").is_dir():
        raise Skipped("there are no weights and images in $OFFSHELF_DATA")
    with tempfile.TemporaryDirectory(prefix="offshelf-predict-") as work:
        yield Place(Path(work), data, quick)


def fitted(place: Place) -> Iterator[Run]:
    """Fit a head on each network, one by one."""
    images = unpack(place.data / "hymenoptera.tar", place.work)
    for network in TAKEN[:1] if place.quick else TAKEN:
        run = Run(network, place.work / network, place.data / "weights" / NETWORKS[network], images)
        cache = ["--cache", str(place.work / "cache"), "--json"]
        known = ["-m", network, "--weights", str(run.weights), "--name", network]
        command(["extract", str(images), *known, *cache])
        command(["fit", network, "--strategy", "linear", "--out", str(run.folder), *cache])
        yield run


def command(arguments: list[str]) -> dict[str, object]:
    """Carry out a command of ours: -> what it says in JSON."""
    return timed([sys.executable, str(ROOT / "pipeline.py"), *arguments])
