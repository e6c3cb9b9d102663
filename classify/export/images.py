"""Which images a program is compared on, and which its int8 ranges come from."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from classify.predict import unseen
from extract import golden
from extract.errors import OptionError
from extract.recipe import Preprocessing
from extract.record import Record
from extract.sources import Held, open_source

NOISE = 8
"""Images of noise beside the golden ones, where nobody gave any: they reach what photos do not."""


@dataclass(frozen=True)
class Images:
    """Images to `compare` on, others for the ranges of int8, and what they are, for people to read."""

    compare: tuple[Record, ...]
    ranges: tuple[Record, ...]
    what: str


def own_images(preset: Preprocessing) -> Images:
    """Return the golden images of the package and images of noise, which are always at hand."""
    noise = tuple(_noise(seed, preset.resize_size) for seed in range(NOISE))
    return Images((*golden.RECORDS, *noise), (), f"{len(golden.RECORDS)} golden images and {NOISE} of noise")


def _noise(seed: int, side: int) -> Record:
    """Draw an image of noise in blocks, from grains to patches, as a PNG in memory."""
    rng, grain = np.random.default_rng(seed), 1 << (seed % 4)
    blocks = rng.integers(0, 256, (-(-side // grain), -(-(side + seed) // grain), 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks.repeat(grain, 0).repeat(grain, 1)).save(file, format="PNG")
    return Held.of(f"noise {seed}", file.getvalue())


def images_of(data: str, root: Path | None, *, most: int, ranges: int) -> Images:
    """Choose of DATA at most `most` images to compare on and, where `ranges` are wanted, so many others for int8.

    Where DATA has splits, its test images, or else its validation ones, are compared on, and ranges come from the other
    ones, as the run was made from those. Both are spread evenly. Raises OptionError where too few images are left.
    """
    records = open_source(data, root).records
    kept = unseen(records)
    chosen = set(kept)
    others = tuple(record for record in records if record not in chosen)
    if not ranges:
        return Images(_spread(kept, most), (), f"images of {data}")
    if not others:
        others, kept = kept[::2], kept[1::2]
    if not others or not kept:
        raise OptionError("too few images for int8", where=data, remedy="Give --data two images or more")
    return Images(_spread(kept, most), _spread(others, ranges), f"images of {data}")


def _spread(records: tuple[Record, ...], most: int) -> tuple[Record, ...]:
    at = np.unique(np.linspace(0, len(records) - 1, min(len(records), most)).astype(int))
    return tuple(records[i] for i in at.tolist())
