"""Pictures that differ as photographs do, and the bytes of their files."""

import io

import numpy as np
from PIL import Image


def photo(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """A picture with coarse and fine structure in colour, another one for each seed."""
    rng = np.random.default_rng(seed)
    coarse, fine = (
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC))
        for n in (6, 24)
    )
    return Image.fromarray((0.7 * coarse + 0.3 * fine).astype(np.uint8))


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Cut a share of each side off on each border."""
    x, y = (round(side * share) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    """The bytes of a file of that kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
