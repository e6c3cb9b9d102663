"""The main job on data that everyone has: scikit-learn's 1,797 real images of handwritten digits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from classify.fit import fit
from classify.spec import FitSpec
from classify.tuning import LINEAR
from extract.errors import StoreError
from extract.progress import Watch
from extract.run import extract
from extract.spec import BackboneSpec, ExtractSpec

TAPS = ("layer1:grid:4", "layer2:grid:4", "layer3:grid:2", "penultimate")
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Demo:
    """What the demo did: the summaries of two extractions and the metrics of the fit between them."""

    images: Path
    first: dict[str, Any]
    metrics: dict[str, Any]
    second: dict[str, Any]


def demo(cache: Path, out: Path, progress: Watch | None = None) -> Demo:
    """Write the digits as PNG files, extract, fit, and extract once more to show that nothing is left to do.

    The fit is a linear one: to find out what more would pay takes longer than all the rest.
    """
    images = cache / "digits-png"
    write_digits(images)
    spec = ExtractSpec(str(images), name="digits", backbone=BackboneSpec("builtin"), taps=TAPS, cache=cache)
    first = extract(spec, progress)
    metrics = fit(FitSpec(first["features"], cache=cache, out=out, strategy=LINEAR), progress=progress)
    return Demo(images, first, metrics, extract(spec, progress))


def write_digits(folder: Path) -> None:
    """Write 1,797 PNG files of 8 x 8 grey pixels as SPLIT/DIGIT/NUMBER.png.

    The last fifth is the test split, as in scikit-learn's own example, not a random one: neighbours in the file were
    written by the same hand.
    """
    try:
        _write_digits(folder)
    except OSError as error:
        said = f"cannot write the images ({error.strerror or error})"
        raise StoreError(said, where=str(folder), remedy="Make room or take another --cache") from error


def _write_digits(folder: Path) -> None:
    digits: Any = load_digits()
    first_test = round(len(digits.target) * (1 - TEST_SHARE))
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("train" if number < first_test else "test") / str(digit) / f"{number:04}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8)).save(temporary, format="PNG")
            temporary.replace(path)
