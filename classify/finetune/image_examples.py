"""Examples that are the pixels of images, decoded as they are asked for."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from classify.finetune.examples import ALONE, Batch, draws
from classify.finetune.plan import Augment
from classify.finetune.ranks import Ranks
from extract.errors import FitError
from extract.loader import Drawn
from extract.pixels import Pixels, PixelStream
from extract.record import Record

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet


class ImageExamples:
    """Images, each proven to be the one that has its features. Use it as a context manager: it has processes.

    `records` may be all that the source lists; `rows` (n,) are the training part's rows of the feature set, and y (n,)
    their codes. Raises FitError where an image is gone, here, or cannot be read or was changed, when it is its turn.
    """

    cached = False

    def __init__(
        self,
        features: "FeatureSet",
        records: Iterable[Record],
        rows: np.ndarray,
        y: np.ndarray,
        *,
        workers: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._features, self._rows, self._y = features, rows, torch.from_numpy(np.asarray(y, np.int64))
        self._records = records_of(features, records, rows)
        self._workers, self.device = max(1, min(workers, len(rows))), torch.device(device)
        self._streams: dict[str, PixelStream] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes; the next batch would start others."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def drawn(
        self, at: np.ndarray, *, batch_size: int, seed: int, start: int, augment: Augment, ranks: Ranks = ALONE
    ) -> Generator[Batch, None, None]:
        """Yield batches of looks that are drawn of images, without end; see `Examples`."""
        how = augment.crop, augment.flip, augment.scale

        def turns() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for places, epochs in draws(len(at), batch_size=batch_size, seed=seed, start=start, ranks=ranks):
                yield at[places], epochs

        def looks() -> Iterator[Record]:
            for chosen, epochs in turns():
                for record, epoch in zip((self._records[each] for each in chosen), epochs.tolist(), strict=True):
                    yield Drawn(record.id, record.path, span=record.span, seed=seed, draw=epoch, augment=how)

        with closing(self._stream("drawn", len(ranks.part(np.arange(batch_size)))).batches(looks())) as run:
            for (chosen, _), pixels in zip(turns(), run, strict=False):
                yield self._batch(chosen, pixels)

    def plain(self, at: np.ndarray, *, batch_size: int) -> Generator[Batch, None, None]:
        """Yield the centre views, once and in order; see `Examples`."""
        listed = [self._records[each] for each in at]
        with closing(self._stream("plain", batch_size).batches(listed)) as run:
            for start, pixels in zip(count(0, batch_size), run, strict=False):
                yield self._batch(at[start : start + batch_size], pixels)

    def _stream(self, kind: str, batch_size: int) -> PixelStream:
        """Return the stream of a kind, whose processes live on from run to run: starting them takes half a second."""
        found = self._streams.get(kind)
        if found and found.batch_size != batch_size:
            self._streams.pop(kind).close()
        if kind not in self._streams:
            self._streams[kind] = PixelStream(
                self._features.recipe, batch_size=batch_size, workers=self._workers, device=self.device
            )
        return self._streams[kind]

    def _batch(self, at: np.ndarray, pixels: Pixels) -> Batch:
        for row, item in zip(self._rows[at].tolist(), pixels.items, strict=True):
            if item.failure:
                raise _refused(self._features.ids[row], f"the image cannot be read ({item.failure.reason})")
            if item.digest != self._features.sha256[row].tobytes():
                raise _refused(self._features.ids[row], "it is another image than the one that has the features")
        return Batch(pixels.pixels, self._y[at], at)


def records_of(features: "FeatureSet", records: Iterable[Record], rows: np.ndarray) -> list[Record]:
    """Find the images behind some rows, by their id; raises FitError where one is not listed any more."""
    listed = {record.id: record for record in records}
    ids = [features.ids[row] for row in rows.tolist()]
    if gone := [id_ for id_ in ids if id_ not in listed]:
        raise _refused(features.source, f"{len(gone)} of {len(ids)} images are not there any more, as {gone[0]!r}")
    return [listed[id_] for id_ in ids]


def _refused(where: str, what: str) -> FitError:
    return FitError(what, where=where, remedy="Say where the images are with --data DATA, or extract them again")
