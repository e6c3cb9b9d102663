"""Real images through real weights: test accuracy of frozen features beside the reference figures of MANIFEST.md.

    python -m benchmarks.real [--data DIR] [--work DIR] [--quick]

Six data sets, three networks, the penultimate layer and the logistic head. The figures go to
`benchmarks/real.json` and `benchmarks/real.md`. With `--work` the unpacked images and the cache stay, so that a run
which was stopped goes on where it was. `--quick` takes two sets and the two small networks, and only prints.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from classify.bundle import PACKAGES
from classify.fit import FitSpec, fit
from extract.run import extract
from extract.spec import BackboneSpec, ExtractSpec, available_cores
from extract.store.index import versions

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 0.02
"""By how much a figure may stay below its reference."""

NETWORKS = {
    "squeezenet1_1": "squeezenet1_1.pt",
    "mobilenet_v2": "mobilenet_v2.pt",
    "resnet50": "resnet50.safetensors",
}
QUICK = (("hymenoptera", "mnist"), ("squeezenet1_1", "mobilenet_v2"))
OMNIGLOT_CHARACTERS = 20
"""Of each zip: all 292 characters would take ResNet-50 some ten minutes more on two cores."""

WHOLE = (("resize_size", 224),)
"""The whole of a square image, as the references were made; the weights' own preset cuts an eighth of each side off."""

Row = dict[str, str]


def data_folder() -> Path:
    """Return where the weights and images are: $OFFSHELF_DATA, or shared/data beside the checkout."""
    return Path(os.environ.get("OFFSHELF_DATA") or ROOT.parent / "shared" / "data")


def unpack(archive: Path, work: Path) -> Path:
    """Unpack an archive once and return its folder: `work` / the archive's name; it is there only when whole."""
    name = archive.name.partition(".")[0]
    if not (work / name).is_dir():
        partial = work / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        (_unzip if archive.suffix == ".zip" else _untar)(archive, partial)
        (partial / name).rename(work / name)
        partial.rmdir()
    return work / name


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            # zipfile would quietly mend a name that leads out of the folder; such an archive is not the one we know.
            if not (folder / member.filename).resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{archive}: {member.filename!r} leads out of the folder")
            file.extract(member, folder)


def write_manifest(folder: Path, rows: Sequence[Row], name: str = "subset.csv") -> Path:
    """Write rows (path, label, split, group) as a manifest inside the folder that their paths are relative to."""
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def first_of_each(folder: Path, per_class: dict[str, int]) -> Iterator[Row]:
    """Yield the first so many images of each class by name, for each split of a folder split/class/file."""
    for split, most in per_class.items():
        for label in sorted(path.name for path in (folder / split).iterdir()):
            for path in sorted((folder / split / label).iterdir())[:most]:
                yield {"path": path.relative_to(folder).as_posix(), "label": label, "split": split}


def omniglot_rows(folder: Path, characters: int = OMNIGLOT_CHARACTERS, train: int = 15) -> Iterator[Row]:
    """Yield the drawings of the first characters: a class is alphabet + character, its first `train` drawings train."""
    for character in sorted(folder.glob("*/*"))[:characters]:
        label = f"{character.parent.name}-{character.name}"
        for number, path in enumerate(sorted(character.glob("*.png"))):
            split = "train" if number < train else "test"
            yield {"path": path.relative_to(folder).as_posix(), "label": label, "split": split}


def spectrogram_rows(folder: Path, per_speaker: int = 25) -> Iterator[Row]:
    """Yield each speaker's first recordings of each digit, and all of the test split.

    The first 150 of a digit by name would be those of three speakers and a half, and the test is of all six.
    """
    taken: Counter[str] = Counter()
    for row in first_of_each(folder, {"train": 270, "test": 30}):
        digit_speaker = Path(row["path"]).stem.rpartition("_")[0]
        taken[digit_speaker] += row["split"] == "train"
        if row["split"] == "test" or taken[digit_speaker] <= per_speaker:
            yield row


@dataclass(frozen=True)
class ImageSet:
    """One data set: its archive (`outer!inner` for a zip in a tar), what of it is used, and the figures to reach."""

    name: str
    archive: str
    case: str
    rows: Callable[[Path], Iterator[Row]] | None = None
    references: dict[str, float] = field(default_factory=dict)
    networks: tuple[str, ...] = tuple(NETWORKS)
    overrides: tuple[tuple[str, Any], ...] = ()

    def prepare(self, data: Path, work: Path) -> Path:
        """Unpack the images and return what `extract` takes: the folder, or a manifest of the subset."""
        outer, _, inner = self.archive.partition("!")
        folder = unpack(data / outer, work)
        if inner:
            folder = unpack(folder / inner, work)
        return write_manifest(folder, list(self.rows(folder))) if self.rows else folder


SETS = (
    ImageSet(
        "hymenoptera",
        "hymenoptera.tar",
        "small, similar",
        references={"resnet50": 0.954, "mobilenet_v2": 0.948, "squeezenet1_1": 0.909},
    ),
    ImageSet(
        "mnist",
        "mnist.tar.gz",
        "large, different",
        lambda folder: first_of_each(folder, {"train": 100, "test": 50}),
        {"mobilenet_v2": 0.904},
        overrides=WHOLE,
    ),
    ImageSet(
        "spectrograms",
        "fsdd_spectrograms.tar.gz",
        "small, different",
        spectrogram_rows,
        {"mobilenet_v2": 0.820},
        overrides=WHOLE,
    ),
    ImageSet(
        "spectrograms-cropped",
        "fsdd_spectrograms.tar.gz",
        "small, different",
        spectrogram_rows,
        networks=("mobilenet_v2",),
    ),
    ImageSet("omniglot-1", "omniglot_small.tar!images_background_small1.zip", "small, different", omniglot_rows),
    ImageSet("omniglot-2", "omniglot_small.tar!images_background_small2.zip", "small, different", omniglot_rows),
    ImageSet(
        "cifar10",
        "cifar10.tar.gz",
        "large, similar",
        lambda folder: first_of_each(folder, {"train": 500, "test": 200}),
        {"mobilenet_v2": 0.757},
        overrides=WHOLE,
    ),
)


def measure(images: ImageSet, network: str, data: Path, work: Path) -> dict[str, Any]:
    """Extract, fit and test one network on one data set: -> one row of the table."""
    spec = ExtractSpec(
        data=str(images.prepare(data, work / "images")),
        name=images.name,
        backbone=BackboneSpec(network, str(data / "weights" / NETWORKS[network]), overrides=images.overrides),
        cache=work / "cache",
    )
    extracted = _timed(work / f"{images.name}-{network}.json", extract(spec))
    metrics = fit(FitSpec(extracted["path"], strategy="linear", out=work / "runs" / f"{images.name}-{network}"))
    test, reference = metrics["test"]["accuracy"], images.references.get(network)
    return {
        "set": images.name,
        "case": images.case,
        "network": network,
        **{name: metrics[name] for name in ("n_train", "n_test", "params", "folds", "warnings")},
        "classes": len(metrics["classes"]),
        "bad": extracted["bad"],
        "cv": metrics["cv"]["accuracy"],
        "test": test,
        "reference": reference,
        "difference": None if reference is None else round(test["value"] - reference, 4),
        "reached": None if reference is None else bool(test["value"] >= reference - TOLERANCE),
        "extract_s": extracted["seconds"],
        "images_per_s": extracted["images_per_s"],
        "fit_s": metrics["seconds"],
    }


def _timed(record: Path, done: dict[str, Any]) -> dict[str, Any]:
    """Return a summary of `extract` with the times of the call that computed all rows, which may be an earlier one."""
    if done["computed"] == done["rows"] or not record.is_file():
        times = {name: done[name] for name in ("seconds", "images_per_s")} if done["computed"] == done["rows"] else {}
        record.write_text(json.dumps(times or {"seconds": None, "images_per_s": None}), encoding="utf-8")
    return done | json.loads(record.read_text(encoding="utf-8"))


def write_figures(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write real.json and real.md: the figures so far, under what they were made with."""
    head = {
        "command": "python -m benchmarks.real",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {available_cores()} cores, no GPU asked for",
        "versions": versions(PACKAGES),
        "tolerance": TOLERANCE,
        "omniglot_characters": OMNIGLOT_CHARACTERS,
    }
    (folder / "real.json").write_text(json.dumps(head | {"rows": rows}, indent=2) + "\n", encoding="utf-8")
    (folder / "real.md").write_text(page(head, rows), encoding="utf-8")


def page(head: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    made = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    characters = head["omniglot_characters"]
    return f"""# Real images, real weights

`{head["command"]}`, {head["date"]}, {head["machine"]}; {made}.

Penultimate features of frozen networks, default options but where said, logistic head; its C was chosen by
cross-validation on the training images alone. Accuracies in percent, with 95 % intervals. A reference is the figure of
`shared/data/MANIFEST.md`; it is reached where the difference is {-100 * TOLERANCE:+.0f} or more. Omniglot: the first
{characters} characters of each zip, 15 drawings of each for training and 5 for the test. Spectrograms: 25 recordings of
each of the six speakers a digit; the split is by recording, so that all speakers are in training and test alike.
CIFAR-10, MNIST and the spectrograms with `--resize-size 224`, as the references were made: the whole of the square
image; `spectrograms-cropped` is with the weights' own preset, which resizes to 256 and cuts the border off.
Seconds and images/s are of a machine shared with other work, and say little about the speed of a quiet one.

{table(rows)}
{_absent(rows)}"""


def _absent(rows: list[dict[str, Any]]) -> str:
    """Say what a run that was stopped did not come to."""
    measured = {(row["set"], row["network"]) for row in rows}
    wanted = [(images.name, network) for images in SETS for network in images.networks]
    absent = [" with ".join(pair) for pair in wanted if pair not in measured]
    return f"\nNot measured (the run was stopped): {', '.join(absent)}.\n" if absent else ""


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    columns = ("set", "network", "train / test", "classes", "CV", "test", "reference", "difference")
    columns += ("extract s", "images/s", "fit s")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(_cells(row)) + " |" for row in rows])


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield from (row["set"], row["network"], f"{row['n_train']} / {row['n_test']}", str(row["classes"]))
    yield from (_interval(row["cv"]), _interval(row["test"]))
    yield "" if row["reference"] is None else f"{100 * row['reference']:.1f}"
    yield (
        "" if row["difference"] is None else f"{100 * row['difference']:+z.1f}{'' if row['reached'] else ' **missed**'}"
    )
    yield from ("" if row[name] is None else f"{row[name]:.0f}" for name in ("extract_s", "images_per_s", "fit_s"))


def _interval(metric: dict[str, float]) -> str:
    return f"{100 * metric['value']:.1f} [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]"


def run(data: Path, work: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Measure every pair, the cheap ones first, and keep the figures after each: a run that is stopped has some."""
    (work / "images").mkdir(parents=True, exist_ok=True)
    names, networks = QUICK if quick else ([images.name for images in SETS], list(NETWORKS))
    rows: list[dict[str, Any]] = []
    for network in networks:
        for images in SETS:
            if images.name in names and network in images.networks:
                rows.append(measure(images, network, data, work))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
                if not quick:
                    write_figures(sorted(rows, key=lambda row: (row["set"], row["network"])), ROOT / "benchmarks")
    return rows


def main() -> int:
    """Run, and say of each reference whether it was reached; 1 where one was not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="holds weights/ and the archives")
    parser.add_argument("--work", type=Path, help="keeps images, cache and runs  [default: a temporary folder]")
    parser.add_argument("--quick", action="store_true", help="two sets, two small networks; prints, keeps no figures")
    options = parser.parse_args()
    if not (options.data / "weights").is_dir():
        parser.error(f"no weights/ in {options.data}: give --data DIR, or set OFFSHELF_DATA")
    with tempfile.TemporaryDirectory(prefix="offshelf-real-") as temporary:
        rows = run(options.data.absolute(), (options.work or Path(temporary)).absolute(), quick=options.quick)
    for row in rows:
        if row["reference"] is not None:
            word = "reached" if row["reached"] else "MISSED"
            print(f"{row['set']} {row['network']}: {row['test']['value']:.3f}, reference {row['reference']}: {word}")
    return int(any(row["reached"] is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
