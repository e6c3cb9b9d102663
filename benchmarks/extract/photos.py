"""The files that are measured on, made from the photos of hymenoptera: seeded, and kept between runs."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, ImageOps

from benchmarks.extract.harness import Place
from benchmarks.image_sets import unpack

SMALL_PX, LARGE_TILES = (500, 375), 8
SMALL, LARGE = 2000, 60
QUALITY = 90


def small(place: Place, n: int) -> Path:
    """Return a folder of the first n of 2,000 JPEGs of 500 x 375, in two class folders."""
    return first(_made(place, "small", SMALL, small_photo), n)


def large(place: Place, n: int) -> Path:
    """Return a folder of the first n of 60 JPEGs of 4,000 x 3,000: mosaics of 64 small photos, as rich in detail."""
    return first(_made(place, "large", LARGE, large_photo), n)


def small_photo(sources: list[Path], chance: random.Random) -> Image.Image:
    """Draw a photo, enlarge it until a 500 x 375 window has room to move, cut the window, flip half of them."""
    width, height = SMALL_PX
    with Image.open(chance.choice(sources)) as opened:
        photo = opened.convert("RGB")
    scale = max(1.04 * width / photo.width, 1.05 * height / photo.height)
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    left, top = chance.randint(0, photo.width - width), chance.randint(0, photo.height - height)
    window = photo.crop((left, top, left + width, top + height))
    return ImageOps.mirror(window) if chance.random() < 0.5 else window


def large_photo(sources: list[Path], chance: random.Random) -> Image.Image:
    """Put small photos side by side."""
    width, height = SMALL_PX
    mosaic = Image.new("RGB", (LARGE_TILES * width, LARGE_TILES * height))
    for tile in range(LARGE_TILES**2):
        mosaic.paste(small_photo(sources, chance), (tile % LARGE_TILES * width, tile // LARGE_TILES * height))
    return mosaic


def _made(place: Place, name: str, n: int, make: Callable[[list[Path], random.Random], Image.Image]) -> Path:
    """Make n photos once; the folder has its name only when it is whole."""
    folder = place.work / name
    if not folder.is_dir():
        sources = sorted(unpack(place.data / "hymenoptera.tar", place.work).rglob("*.jpg"))
        partial = folder.with_name(f"{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        chance = random.Random(0)  # noqa: S311 no secret
        for path in _paths(partial, n):
            make(sources, chance).save(path, quality=QUALITY)
        partial.rename(folder)
    return folder


def _paths(folder: Path, n: int) -> Iterator[Path]:
    for number in range(n):
        path = folder / "ab"[number % 2] / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path


def first(folder: Path, n: int) -> Path:
    """Return a folder with the first n photos of another, as hard links."""
    part = folder.with_name(f"{folder.name}-{n}")
    if not part.is_dir():
        partial = part.with_name(f"{part.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for path in _paths(partial, n):
            os.link(folder / path.relative_to(partial), path)
        partial.rename(part)
    return part
