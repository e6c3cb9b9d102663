"""The shared image sets, a few images of each class at a time: a cell is one set at one size."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.extract.harness import Numbers, Skipped
from benchmarks.image_sets import data_folder, first_of_each, unpack, write_manifest
from extract.run import extract
from extract.spec import BackboneSpec, ExtractSpec

NETWORKS = {"mobilenet_v2": "mobilenet_v2.pt", "squeezenet1_1": "squeezenet1_1.pt"}
"""Small networks with weights of ImageNet, and the files of these; the first is that of cells named by set and size."""
FIRST = next(iter(NETWORKS))
SMALL = 50
"""Images a class up to which a quick run goes."""
TEST_IMAGES = 100
"""Of each class, where a set has more."""

Rows = Iterator[dict[str, str]]


@dataclass(frozen=True)
class ImageSet:
    """One data set: its archive, which of the four cases it is, images a class to train on, and the side in pixels.

    `group` names the group of an image by its path, where those of one group are alike.
    """

    name: str
    archive: str
    case: str
    sizes: tuple[int, ...]
    side_px: int
    rows: Callable[[Path, int], Rows]
    group: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Cell:
    """One set, with so many images of each class to train on, and the network to begin with."""

    images: ImageSet
    per_class: int
    network: str = FIRST

    @property
    def name(self) -> str:
        """Name the cell, and what is kept of it."""
        name = f"{self.images.name}-{self.per_class}"
        return name if self.network == FIRST else f"{name}-{self.network}"

    def head(self) -> Numbers:
        """Return what a row says first."""
        return {"set": self.images.name, "case": self.images.case, "a class": self.per_class, "network": self.network}


@dataclass(frozen=True)
class Workplace:
    """Where the images are, where runs are kept, and the moment (`time.monotonic()`) from which no new one begins."""

    data: Path
    folder: Path
    until: float

    @property
    def cache(self) -> Path:
        """Return the folder of the features."""
        return self.folder / "cache"

    def run(self, cell: Cell, name: str) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / f"{cell.name}-{name}"

    def is_over(self) -> bool:
        """Say whether the time is up."""
        return time.monotonic() >= self.until

    def closed(self) -> "Workplace":
        """Return the same place, where no new run begins."""
        return replace(self, until=0.0)


def open_workplace() -> Workplace:
    """Find the images and the runs, as $OFFSHELF_DATA, $OFFSHELF_WORK and $OFFSHELF_SECONDS have it."""
    data = data_folder()
    if absent := [name for name in NETWORKS.values() if not (data / "weights" / name).is_file()]:
        raise Skipped(f"no weights/{absent[0]} in {data.name}")
    work = Path(os.environ.get("OFFSHELF_WORK") or "cache/benchmark-finetune")
    return Workplace(data, work, time.monotonic() + float(os.environ.get("OFFSHELF_SECONDS") or "inf"))


def given(folder: Path, per_class: int) -> Rows:
    """Take so many training images of each class, and the set's own test images."""
    test = "test" if (folder / "test").is_dir() else "val"
    return first_of_each(folder, {"train": per_class, test: TEST_IMAGES})


def by_speaker(folder: Path, per_class: int) -> Rows:
    """Take so many recordings of each digit, all speakers alike; whole speakers are held out by `fit`."""
    for digit in sorted((folder / "train").iterdir()):
        speakers: dict[str, list[Path]] = {}
        for path in sorted(digit.iterdir()):
            speakers.setdefault(speaker(path.name), []).append(path)
        for name, paths in speakers.items():
            for path in paths[: -(-per_class // len(speakers))]:
                yield {"path": path.relative_to(folder).as_posix(), "label": digit.name, "split": "", "group": name}


def speaker(path: str) -> str:
    """Name who speaks: `train/0/0_theo_10.png` -> `theo`."""
    return Path(path).stem.split("_")[1]


SETS = (
    ImageSet("cifar10", "cifar10.tar.gz", "large, similar", (10, 50, 200), 64, given),
    ImageSet("spectrograms", "fsdd_spectrograms.tar.gz", "small, different", (12, 48, 198), 64, by_speaker, speaker),
    ImageSet("mnist", "mnist.tar.gz", "large, different", (10, 50, 200), 64, given),
    ImageSet("hymenoptera", "hymenoptera.tar", "small, similar", (10, 50, 120), 64, given),
)


def all_cells() -> list[Cell]:
    """List the cells, the smallest of the first network first."""
    sizes = sorted(((images, size) for images in SETS for size in images.sizes), key=lambda each: each[1])
    return [Cell(images, size, network) for network in NETWORKS for images, size in sizes]


def extracted(cell: Cell, place: Workplace) -> str:
    """Extract one set at one size: -> the path of its features."""
    images = cell.images
    folder = unpack(place.data / images.archive, place.folder / "images")
    manifest = write_manifest(folder, list(images.rows(folder, cell.per_class)), f"{cell.per_class}-a-class.csv")
    sides = (("resize_size", images.side_px), ("crop_size", images.side_px))
    weights = place.data / "weights" / NETWORKS[cell.network]
    backbone = BackboneSpec(cell.network, str(weights), overrides=sides)
    taps = ("stages", "penultimate")
    return extract(ExtractSpec(str(manifest), cell.name, backbone=backbone, taps=taps, cache=place.cache))["path"]
