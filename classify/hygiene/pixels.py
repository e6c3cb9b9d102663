"""The images behind the features, where they are still at hand: small grey pictures to compare, thumbnails to show."""

import base64
import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from extract.errors import OffshelfError, SourceError
from extract.images import MAX_BYTES, decode
from extract.progress import Progress, Silent
from extract.record import Failure, Record, Status
from extract.sources import open_source, read_bytes
from extract.spec import available_cores

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

SIDE_PX = 64
"""Side of the grey pictures by which two images are compared."""

THUMBNAIL_PX = 96
MAX_THUMBNAIL_BYTES = 12_000
QUALITIES = (80, 60, 40, 20)
"""Of the JPEG of a thumbnail: the first that keeps within the bytes."""

BELOW = ", below "
"""What stands between a manifest, or a torchvision name, and its root in the origin of a feature set."""

GONE, CHANGED, BROKEN, UNKNOWN = "not there any more", "of other content", "not readable now", "of unknown content"
"""Why an image is not at hand."""


class Images:
    """The images of a feature set by row, each proven to be the one whose features they are.

    Nothing here raises for an image that is missing, changed or broken: it comes as None, and `trouble` counts it.
    """

    def __init__(self, features: "FeatureSet", records: Sequence[Record]) -> None:
        self._ids, self._sha256, self._status = features.ids, features.sha256, features.status
        self._records = {record.id: record for record in records}
        self._trouble: dict[int, str] = {}

    def grey(self, row: int) -> np.ndarray | None:
        """Return one image as (64, 64) float32 of 0..255, squeezed to a square; None where it is not at hand."""
        image = self._image(row, 2 * SIDE_PX)
        return None if image is None else _grey(image).astype(np.float32)

    def greys(
        self, rows: Sequence[int] | np.ndarray, *, workers: int | None = None, progress: Progress | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return many by threads, in order: (m,) -> (m, 64, 64) uint8, and (m,) bool for those that are at hand."""
        told = progress or Silent()
        told.start("compare images", len(rows))
        greys, good = np.zeros((len(rows), SIDE_PX, SIDE_PX), np.uint8), np.zeros(len(rows), bool)

        def fill(at: int) -> None:
            image = self._image(int(rows[at]), 2 * SIDE_PX)
            if image is not None:
                greys[at], good[at] = _grey(image), True

        threads = ThreadPoolExecutor(workers or available_cores())
        try:
            for at, _ in enumerate(threads.map(fill, range(len(rows)))):
                told.advance(1, bad=int(not good[at]))
        finally:
            threads.shutdown(cancel_futures=True)  # Ctrl-C does not wait for all the others
        return greys, good

    def thumbnail(self, row: int, px: int = THUMBNAIL_PX) -> str | None:
        """Return one image as a data: URI of a JPEG no larger than px x px and 12,000 bytes, without metadata.

        None where it is not at hand, or cannot be made so small.
        """
        image = self._image(row, px)
        if image is None:
            return None
        small = Image.fromarray(image)
        small.thumbnail((px, px), Image.Resampling.LANCZOS)
        made = (_jpeg(small, quality) for quality in QUALITIES)
        data = next((each for each in made if len(each) <= MAX_THUMBNAIL_BYTES), None)
        return None if data is None else f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"

    def has(self, row: int) -> bool:
        """Tell whether an image of that name is listed; its content is looked at when it is read."""
        return self._ids[row] in self._records

    @property
    def trouble(self) -> list[str]:
        """Say in words how many of the images that were asked for are not at hand, and why."""
        reasons = list(self._trouble.values())
        counts = {reason: reasons.count(reason) for reason in (GONE, CHANGED, BROKEN, UNKNOWN)}
        return [
            f"{n} {'image is' if n == 1 else 'images are'} {reason}, and could not be looked at"
            for reason, n in counts.items()
            if n
        ]

    def _image(self, row: int, short_px: int) -> np.ndarray | None:
        """Decode one image: -> (H, W, 3) uint8, perhaps smaller than it is, but the shorter side no less than asked."""
        found = self._decoded(row, short_px)
        if isinstance(found, str):
            self._trouble[row] = found
            return None
        return found

    def _decoded(self, row: int, short_px: int) -> np.ndarray | str:
        record, known = self._records.get(self._ids[row]), self._sha256[row].tobytes()
        if not any(known):
            return UNKNOWN
        # What was decoded by processes of its own then is no danger to this one now.
        if self._status[row] != Status.OK:
            return BROKEN
        data = Failure(0, GONE) if record is None else read_bytes(record, MAX_BYTES)
        if isinstance(data, Failure):
            return GONE
        # Another image under the same name is not this one.
        if hashlib.sha256(data).digest() != known:
            return CHANGED
        try:
            pixels = decode(data, short_px=short_px)
        except MemoryError:
            return BROKEN
        return BROKEN if isinstance(pixels, Failure) else pixels


def open_images(
    features: "FeatureSet", data: str | None = None, root: Path | None = None
) -> tuple[Images | None, list[str]]:
    """Find the images of a feature set: in `data`, by default where they were extracted from; None, and why, if gone.

    What torchvision keeps is only opened when `data` names it: that takes importing torch, or a download.
    """
    if data is None and features.source.startswith("torchvision:"):
        return None, [f"the images lie in {features.source}, which is not opened for this: none is looked at"]
    try:
        given, below = (data, root) if data is not None else origin(features.source)
        records = open_source(given, below).records
    except (SourceError, OSError, ValueError) as error:
        said = f"the images are not found, and not looked at ({briefly(error)})"
        return None, [f"{said}. Say where they are with --data DATA"]
    found = Images(features, records)
    absent = sum(not found.has(row) for row in range(len(features.ids)))
    if absent == len(features.ids):
        return None, [f"none of the images is in {given}, and none is looked at. Say where they are with --data DATA"]
    return found, [f"{absent} of {len(features.ids)} images are not in {given} any more"] if absent else []


def briefly(error: Exception) -> str:
    """Say what is wrong and where, without a remedy that is meant for `extract`."""
    if not isinstance(error, OffshelfError):
        return str(error)
    return f"{error.where}: {error.what}" if error.where else error.what


def origin(source: str) -> tuple[str, Path | None]:
    """Split the origin of a feature set into DATA and the root: most have none, and a folder may be called anything."""
    data, found, root = source.rpartition(BELOW)
    if not found or Path(source).exists():
        return source, None
    return data, Path(root)


def _grey(image: np.ndarray) -> np.ndarray:
    """Squeeze RGB to a small grey square: (H, W, 3) uint8 -> (64, 64) uint8."""
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
