"""The real images and weights that benchmarks are made with: where they are, and what of them is used."""

import csv
import os
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

NETWORKS = {
    "squeezenet1_1": "squeezenet1_1.pt",
    "mobilenet_v2": "mobilenet_v2.pt",
    "resnet50": "resnet50.safetensors",
}

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
