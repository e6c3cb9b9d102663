"""A fine-tuning from beginning to end: 60 small images of stripes, the built-in network with random weights."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classify.fit import fit
from classify.spec import FitSpec
from classify.tuning import TuneSpec
from extract.run import extract
from extract.spec import BackboneSpec
from extract.store import open_features
from tests.tiny import tiny_spec

CLASSES = ("ant", "bee", "cat")
PER_CLASS = {"train": 16, "test": 4}
SIDE_PX = 32
QUICK = {"steps": 6, "batch_size": 16, "rates": (0.03,), "seeds": 1, "views": 2, "checkpoint_s": 60.0}


def stripes(kind: int, seed: int) -> Image.Image:
    """Stripes whose distance tells the class, under noise."""
    noise = np.random.default_rng(seed).integers(0, 90, (SIDE_PX, SIDE_PX, 3))
    wave = 60 * np.sin(np.arange(SIDE_PX) * (0.5 + 0.5 * kind))[None, :, None]
    return Image.fromarray(np.clip(noise + wave + 80, 0, 255).astype(np.uint8))


def write_photos(folder: Path) -> Path:
    """Class folders below train/ and test/."""
    for split, count in PER_CLASS.items():
        for kind, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                stripes(kind, 100 * kind + i + 50 * (split == "test")).save(folder / split / name / f"{i:02}.png")
    return folder


def extract_photos(data: Path, cache: Path, **changes: Any) -> dict[str, Any]:
    """Features of two taps, the images as large as they are."""
    sizes = (("resize_size", SIDE_PX), ("crop_size", SIDE_PX))
    known = {"backbone": BackboneSpec("builtin", "none", overrides=sizes), "name": "photos", **changes}
    return extract(tiny_spec(data, cache, **known))


def mislabelled(folder: Path) -> Path:
    """Write photos/, the features of them in cache/, and labels.csv, where every third image has a wrong label."""
    extract_photos(write_photos(folder / "photos"), folder / "cache")
    ids = sorted(open_features("photos", folder / "cache").ids)
    kinds = [(CLASSES.index(id_.split("/")[-2]) + (at % 3 == 0)) % len(CLASSES) for at, id_ in enumerate(ids)]
    rows = [f"{id_},{CLASSES[kind]}\n" for id_, kind in zip(ids, kinds, strict=True)]
    (folder / "labels.csv").write_text("path,label\n" + "".join(rows))
    return folder


def tune(root: Path, strategy: str, *, out: str = "", **changes: Any) -> dict[str, Any]:
    """Fine-tune on the features in `root/cache`; fields of `FitSpec` and `TuneSpec` as they come."""
    fields = {name: changes.pop(name) for name in list(changes) if name not in TuneSpec.__dataclass_fields__}
    fields = {"cv": 3, "jobs": 1, "duplicates": "off", "device": "cpu", **fields}
    how = TuneSpec(**{**QUICK, **({} if strategy == "tail" else {"views": 4}), **changes})
    spec = FitSpec("photos", cache=root / "cache", strategy=strategy, tune=how, out=root / (out or strategy), **fields)
    return fit(spec)
