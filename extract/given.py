"""Images as a program gives them: files, Pillow's images and arrays, each known by its content.

What is no file is written as one where it is to be decoded, as a BMP: without loss, and the same bytes every time.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from extract.contents import content_digest
from extract.errors import ImageError
from extract.images import upright_rgb
from extract.record import Failure, Record, Status

Given = str | os.PathLike[str] | Image.Image | np.ndarray
"""A file, an image of Pillow's, or pixels (H, W, 3) uint8, RGB."""

FORMS = "Give paths of image files, images of Pillow's, or RGB pixels (H, W, 3) uint8"


def as_given(images: Any) -> list[Given]:
    """List images: a sequence of them, (n,) or a column (n, 1) of paths, or pixels (n, H, W, 3) uint8.

    Raises ImageError where one of them is nothing of that kind.
    """
    if hasattr(images, "__array__") and not isinstance(images, np.ndarray):  # a column of a table
        images = np.asarray(images)
    if isinstance(images, np.ndarray) and images.ndim == 2 and images.shape[1] == 1:
        images = images[:, 0]
    listed = list(_sequence(images))
    if not listed:
        raise ImageError("no images", remedy=FORMS)
    for number, image in enumerate(listed):
        if not _is_image(image):
            raise ImageError(f"image {number} is {_in_words(image)}", remedy=FORMS)
    return listed


def _sequence(images: Any) -> Iterable[Any]:
    if hasattr(images, "tocsr"):
        raise ImageError("a sparse matrix of numbers instead of images", remedy=FORMS)
    if isinstance(images, (str, bytes)) or not getattr(images, "ndim", 1) or not hasattr(images, "__len__"):
        raise ImageError(f"one {_in_words(images)} instead of several", remedy=f"{FORMS}, as a list")
    return images


def _is_image(image: Any) -> bool:
    if isinstance(image, np.ndarray):
        return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    return isinstance(image, str | os.PathLike | Image.Image)


def _in_words(image: Any) -> str:
    if isinstance(image, np.ndarray):
        return f"array {image.shape} of {image.dtype}"
    return f"object of type {type(image).__name__}"


def name_of(image: Given, number: int) -> str:
    """Call an image by its path, or by its number where it has none."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else str(number)


def contents_of(images: Sequence[Given], *, workers: int) -> list[bytes | Failure]:
    """SHA-256 of each image's file, or of the file that it is written as; or why there is none."""
    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(content_of, images))


def content_of(image: Given) -> bytes | Failure:
    """Return the SHA-256 of one image's file."""
    if isinstance(image, str | os.PathLike):
        return content_digest(Record("", os.fspath(image)))
    written = _bmp(image)
    return written if isinstance(written, Failure) else hashlib.sha256(written).digest()


def record_of(image: Given, content: bytes, folder: Path) -> Record:
    """Make the record of an image, called by its content; pixels are written as a file in `folder`."""
    if isinstance(image, str | os.PathLike):
        return Record(content.hex(), os.fspath(image))
    written, path = _bmp(image), folder / f"{content.hex()}.bmp"
    if isinstance(written, bytes):
        path.write_bytes(written)
    return Record(content.hex(), str(path))


def _bmp(image: Image.Image | np.ndarray) -> bytes | Failure:
    """Write an image as it would be decoded, upright and in RGB; whatever is wrong with it becomes a Failure."""
    try:
        upright = Image.fromarray(image) if isinstance(image, np.ndarray) else upright_rgb(image)
        if isinstance(upright, Failure):
            return upright
        file = io.BytesIO()
        upright.save(file, format="BMP")
        return file.getvalue()
    except MemoryError:
        raise
    except Exception as error:  # an image of Pillow's may be read only now, and of hostile bytes it raises anything
        return Failure(Status.DAMAGED, f"{type(error).__name__}: {error}"[:200])
