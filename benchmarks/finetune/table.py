"""Every strategy on the shared sets, at several sizes: where each wins, and what it costs."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.extract.harness import Figures, Numbers, Skipped
from benchmarks.real import data_folder, first_of_each, unpack, write_manifest
from classify.fit import fit
from classify.spec import FitSpec
from classify.tuning import STRATEGIES, TuneSpec
from extract.run import extract
from extract.spec import BackboneSpec, ExtractSpec

NETWORK, WEIGHTS = "mobilenet_v2", "mobilenet_v2.pt"
STEPS = dict.fromkeys(STRATEGIES, 300) | {"scratch": 600}
"""Of 32 images or more, for every strategy alike but for the one that has nothing to begin with."""
SMALL = 50
"""Images a class up to which a quick run goes."""
TEST_IMAGES = 100
"""Of each class, where a set has more."""

Rows = Iterator[dict[str, str]]


@dataclass(frozen=True)
class ImageSet:
    """One data set: its archive, which of the four cases it is, images a class to train on, and the side in pixels."""

    name: str
    archive: str
    case: str
    sizes: tuple[int, ...]
    side_px: int
    rows: Callable[[Path, int], Rows]


def given(folder: Path, per_class: int) -> Rows:
    """Take so many training images of each class, and the set's own test images."""
    test = "test" if (folder / "test").is_dir() else "val"
    return first_of_each(folder, {"train": per_class, test: TEST_IMAGES})


def by_speaker(folder: Path, per_class: int) -> Rows:
    """Take so many recordings of each digit, all speakers alike; whole speakers are held out by `fit`."""
    for digit in sorted((folder / "train").iterdir()):
        speakers: dict[str, list[Path]] = {}
        for path in sorted(digit.iterdir()):
            speakers.setdefault(path.stem.split("_")[1], []).append(path)
        for speaker, paths in speakers.items():
            for path in paths[: -(-per_class // len(speakers))]:
                yield {"path": path.relative_to(folder).as_posix(), "label": digit.name, "split": "", "group": speaker}


SETS = (
    ImageSet("cifar10", "cifar10.tar.gz", "large, similar", (10, 50, 200), 64, given),
    ImageSet("spectrograms", "fsdd_spectrograms.tar.gz", "small, different", (12, 48, 198), 64, by_speaker),
    ImageSet("mnist", "mnist.tar.gz", "large, different", (10, 50, 200), 64, given),
    ImageSet("hymenoptera", "hymenoptera.tar", "small, similar", (10, 50, 120), 64, given),
)


def strategies(quick: bool) -> Figures:
    """Run every strategy on every set and size; what was done before is not done again."""
    data = data_folder()
    if not (data / "weights" / WEIGHTS).is_file():
        raise Skipped(f"no weights/{WEIGHTS} in {data.name}")
    work = Path(os.environ.get("OFFSHELF_WORK") or "cache/benchmark-finetune")
    cells = sorted(((images, size) for images in SETS for size in images.sizes), key=lambda cell: cell[1])
    rows = [row(images, size, data, work) for images, size in cells if size <= SMALL or not quick]
    note = (
        f"{NETWORK} with ImageNet weights; images of 64 pixels; {STEPS['full']} steps for each, "
        f"{STEPS['scratch']} from scratch, three rates searched by successive halving, one seed. "
        "Test accuracy in percent, and the paired 95 % interval of its difference "
        "to the probe on the same images. Spectrograms: whole speakers are held out. Hymenoptera is a subset of the "
        "pretraining data: a smoke test."
    )
    return Figures(rows, note)


def row(images: ImageSet, per_class: int, data: Path, work: Path) -> Numbers:
    """Measure the probe and every strategy on one set and size: -> one row of the table."""
    found = {strategy: measured(images, per_class, strategy, data, work) for strategy in STRATEGIES}
    one = found[STRATEGIES[0]]
    head = {
        "set": images.name,
        "case": images.case,
        "a class": per_class,
        "train": one["n_train"],
        "test": one["n_test"],
    }
    return {**head, "probe": percent(one["probe"]["test"]), **{name: said(each) for name, each in found.items()}}


def said(metrics: Mapping[str, Any]) -> str:
    """Put one strategy into words: accuracy, the interval of the gain, seconds."""
    metric, gain = percent(metrics["test"]), metrics["gain"]["test"]["accuracy"]
    low, high = (f"{100 * gain[end]:+.1f}" for end in ("low", "high"))
    return f"{metric} ({low} to {high}), {metrics['seconds']:.0f} s"


def percent(measures: Mapping[str, Mapping[str, float]]) -> str:
    """Put an accuracy into words."""
    return f"{100 * measures['accuracy']['value']:.1f}"


def measured(images: ImageSet, per_class: int, strategy: str, data: Path, work: Path) -> Mapping[str, Any]:
    """Fit by one strategy, unless it was done before: -> its metrics."""
    out = work / "runs" / f"{images.name}-{per_class}-{strategy}"
    if (out / "metrics.json").is_file():
        return json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    features = extracted(images, per_class, data, work)
    tune = TuneSpec(steps=STEPS[strategy], folds=0, seeds=1)
    spec = FitSpec(features, cache=work / "cache", strategy=strategy, tune=tune, out=out, duplicates="off")
    return fit(spec)


def extracted(images: ImageSet, per_class: int, data: Path, work: Path) -> str:
    """Extract one set at one size: -> the path of its features."""
    folder = unpack(data / images.archive, work / "images")
    manifest = write_manifest(folder, list(images.rows(folder, per_class)), f"{per_class}-a-class.csv")
    sides = (("resize_size", images.side_px), ("crop_size", images.side_px))
    backbone = BackboneSpec(NETWORK, str(data / "weights" / WEIGHTS), overrides=sides)
    taps = ("stages", "penultimate")
    name = f"{images.name}-{per_class}"
    return extract(ExtractSpec(str(manifest), name, backbone=backbone, taps=taps, cache=work / "cache"))["path"]
