"""Real photographs through a real network: planted near-duplicates are found, and nothing else is taken for one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from tiny_photos import cropped, encoded

from benchmarks.image_sets import NETWORKS, data_folder, unpack
from classify.hygiene import find_duplicates, open_images
from extract.run import extract
from extract.spec import BackboneSpec, ExtractSpec
from tests.tiny import features_of

DATA = data_folder()
NETWORK = "squeezenet1_1"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not (DATA / "weights").is_dir(), reason=f"no weights/ in {DATA}: real weights and images, see OFFSHELF_DATA"
    ),
]
PHOTOS = 120
VARIANTS: dict[str, Callable[[Image.Image], bytes]] = {
    "quality": lambda image: encoded(image, quality=40),
    "size": lambda image: encoded(image.resize((image.width * 4 // 5, image.height * 4 // 5)), quality=90),
    "mirror": lambda image: encoded(ImageOps.mirror(image), quality=92),
    "crop": lambda image: encoded(cropped(image, 0.02), quality=92),
}


def test_planted_near_duplicates_of_photographs_are_found(tmp_path: Path) -> None:
    photos = sorted(unpack(DATA / "hymenoptera.tar", tmp_path).glob("*/*/*.jpg"))[:PHOTOS]
    folder = tmp_path / "photos"
    folder.mkdir()
    for at, path in enumerate(photos):
        (folder / f"{at:03}.jpg").write_bytes(path.read_bytes())
        name, change = list(VARIANTS.items())[at % len(VARIANTS)]
        if at < PHOTOS // 3:
            with Image.open(path) as image:
                (folder / f"{at:03}-{name}.jpg").write_bytes(change(image.convert("RGB")))
    backbone = BackboneSpec(NETWORK, str(DATA / "weights" / NETWORKS[NETWORK]))
    features = features_of(extract(ExtractSpec(str(folder), backbone=backbone, cache=tmp_path / "cache", device="cpu")))
    images, notes = open_images(features)
    assert notes == []

    found = find_duplicates(features, "penultimate", np.arange(len(features)), images)

    planted = {name for name in features.ids if "-" in name}
    told = {(features.ids[pair.a], features.ids[pair.b]) for pair in found.pairs}
    pairs = {tuple(sorted((name, f"{name[:3]}.jpg"))) for name in planted}
    missed = {name: sum(name in str(pair) for pair in pairs - told) for name in VARIANTS}
    assert missed == dict.fromkeys(VARIANTS, 0)
    assert told == pairs
