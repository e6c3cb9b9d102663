"""Published figures beside ours, by the very commands of docs/figures.md, where weights and images are at hand.

    python -m benchmarks.published [NAME...] [--write]
    OFFSHELF_WORK=FOLDER python -m benchmarks.published cifar10 --write

`--write` puts the figures into `benchmarks/published.json`, and from there into `benchmarks/published.md`.
"""

import contextlib
import json
import os
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.extract.harness import ROOT, Figures, Goal, Numbers, Skipped, timed
from benchmarks.image_sets import NETWORKS, data_folder, unpack
from benchmarks.published.tables import Row, Table, read_tables
from benchmarks.suite import Suite

LEAD = """\
Each figure was made by the commands of [docs/figures.md](../docs/figures.md), with the weights that are at hand: where
the published network is another one, the row says so, and the comparison is a smoke test. Accuracies in percent, with
95 % intervals. A published figure is reached where ours is no further below it than the tolerance, or where it lies in
our interval."""

HYMENOPTERA = {"squeezenet1_0": ("squeezenet1_1",), "resnet18": ("mobilenet_v2", "resnet50")}
"""Networks at hand, by the published one that each is held against."""

COPIES = (
    "The images at hand are lossy copies: JPEG of quality 75, whose colours have half the resolution, 16 x 16 pixels. "
    "The published figure is of the lossless ones, and so whether it is reached cannot be told. Features in bf16."
)


def hymenoptera(quick: bool) -> Figures:
    """Hold frozen networks against the tutorial's."""
    table, data = _table("hymenoptera"), _data()
    rows = []
    with _new_folder() as folder:
        images = unpack(data / "hymenoptera.tar", Path(folder))
        for network, ours in HYMENOPTERA.items():
            published = [row for row in table.rows if row.network == network]
            for other in ours[:1] if quick else ours:
                taken = replace(published[0], network=other, data=str(images))
                accuracy = _accuracy(table, taken, data, Path(folder))
                rows += [_line(row, other, accuracy) for row in published]
    return Figures(rows, "A smoke test: the photos are from ImageNet.", [_goal(row, table.tolerance) for row in rows])


def cifar10(quick: bool) -> Figures:
    """Hold the linear protocol against Ericsson's figure, on all 60,000 images."""
    table, data = _table("ericsson-2021"), _data()
    work, on_gpu = os.environ.get("OFFSHELF_WORK"), torch.cuda.is_available()
    if quick or not (work or on_gpu):
        raise Skipped(
            "ResNet-50 takes an hour for 60,000 images on a CPU: say where it may go on, OFFSHELF_WORK=FOLDER"
        )
    with contextlib.nullcontext(work) if work else _new_folder() as folder:
        images = unpack(data / "cifar10.tar.gz", Path(folder))
        row = replace(table.rows[0], data=str(images), options=f"{table.rows[0].options} --precision bf16")
        accuracy = _accuracy(table, row, data, Path(folder))
    line = _line(table.rows[0], row.network, accuracy)
    return Figures([line], COPIES, [replace(_goal(line, table.tolerance), met=None)])


def _new_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="offshelf-published-")


def _table(name: str) -> Table:
    return next(table for table in read_tables() if table.name == name)


def _data() -> Path:
    folder = data_folder()
    if not (folder / "weights").is_dir():
        raise Skipped("there are no weights and images in $OFFSHELF_DATA")
    return folder


def _accuracy(table: Table, row: Row, data: Path, folder: Path) -> Numbers:
    """Run the commands of a row in `folder`: -> accuracy with its interval."""
    for line in table.commands_of(row, str(data / "weights" / NETWORKS[row.network])):
        timed([sys.executable, str(ROOT / "pipeline.py"), *shlex.split(line), *_places(line, folder)])
    metrics = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    return metrics["test"]["accuracy"]


def _places(line: str, folder: Path) -> list[str]:
    own = ["--out", str(folder / "run")] if line.startswith("fit") else []
    return ["--cache", str(folder / "cache"), "--json", *own]


def _line(row: Row, network: str, accuracy: Numbers) -> Numbers:
    inside = accuracy["low"] <= row.published <= accuracy["high"]
    return {
        "set": row.set,
        "strategy": row.strategy,
        "published_with": row.network,
        "published": round(100 * row.published, 1),
        "ours_with": network,
        "ours": {name: round(100 * accuracy[name], 1) for name in ("value", "low", "high")},
        "difference": round(100 * (accuracy["value"] - row.published), 1),
        "within_our_interval": "yes" if inside else "no",
    }


def _goal(line: Numbers, tolerance: float) -> Goal:
    """Ask for a figure within the tolerance of the published one, or an interval that holds it."""
    said = f"{line['set']}: {line['published']} by {line['published_with']}, {line['strategy']}"
    reached = line["difference"] >= -100 * tolerance or line["within_our_interval"] == "yes"
    return Goal(said, f"{line['ours']['value']} by {line['ours_with']}", reached)


SUITE = Suite(
    name="published",
    about=(__doc__ or "").splitlines()[0],
    title="Published figures, and ours",
    lead=LEAD,
    packages=("torch", "torchvision", "scikit-learn"),
    measurements={"hymenoptera": hymenoptera, "cifar10": cifar10},
)

if __name__ == "__main__":
    sys.exit(SUITE.main())
