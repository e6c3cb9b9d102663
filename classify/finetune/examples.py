"""What a network is trained on, batch by batch: pixels of images, or cached maps of a trunk.

Which image comes when, and what is drawn of it, follows from the seed and the step alone: a training that goes on from
a step sees what it would have seen had it never stopped.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from classify.finetune.plan import Augment
from classify.finetune.ranks import Ranks
from extract.channel import Channel, Crew
from extract.errors import FitError
from extract.loader import Drawn
from extract.pixels import Pixels, PixelStream
from extract.recipe import view_of
from extract.record import Record

if TYPE_CHECKING:
    from extract.store.reader import FeatureSet

ALONE = Ranks()
AHEAD = 2
"""Batches of maps that are read ahead: one is on its way while one is waiting."""

BY_VIEWS = 1
"""Tells the draws of views from those of the order."""

Wanted = Iterable[tuple[np.ndarray, np.ndarray]]
"""Batch by batch, which examples (n,) and in which view each (n,)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some examples: `x` (n, 3, S, S) uint8 pixels or (n, C, H, W) float32 maps, `y` (n,) int64 codes.

    `at` (n,) int64 says which they are, as positions into the training part. `x` lies on the device of the examples,
    in memory of its own; `y` on the CPU.
    """

    x: Tensor
    y: Tensor
    at: np.ndarray


class Examples(Protocol):
    """The images of a training part, as a network takes them in. `cached` tells maps of a trunk from pixels.

    An iterator that is left early is to be closed; of each kind one is used at a time.
    """

    cached: bool

    def drawn(
        self, at: np.ndarray, *, batch_size: int, seed: int, start: int, augment: Augment, ranks: Ranks = ALONE
    ) -> Generator[Batch, None, None]:
        """Yield batches without end, from step `start` on as if it had begun at 0; `at` (n,) says of which examples.

        Each epoch has all of them in an order of its own, and batches run across epochs: none is short, nothing is
        left out. What is drawn of an image depends on the seed and the epoch. Of several processes each has its part of
        every batch, and together they have what one alone would.
        """
        ...

    def plain(self, at: np.ndarray, *, batch_size: int) -> Generator[Batch, None, None]:
        """Yield the examples `at` (n,) once, in order, as the network looks at images that it is to recognise."""
        ...


def draws(
    n: int, *, batch_size: int, seed: int, start: int = 0, ranks: Ranks = ALONE
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each step from `start` on whose turn it is, in 0..n-1 (B,) int64, and in which epoch (B,) int64.

    Of several processes each is told of its part of the B alone.
    """

    @lru_cache(maxsize=2)
    def shuffled(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(n)

    for step in count(start):
        batch = np.arange(step * batch_size, (step + 1) * batch_size)
        epochs, turns = np.divmod(ranks.part(batch), n)
        parts = [shuffled(epoch)[turns[epochs == epoch]] for epoch in range(epochs[0], epochs[-1] + 1)]
        yield np.concatenate(parts), epochs


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


class MapExamples:
    """Cached maps of a trunk, in one of their views each; read ahead on a thread.

    `rows` (n,) are those of the maps, `layer` is their tap; y (n,) are codes. A GPU has a stream of its own for them.
    """

    cached = True

    def __init__(
        self, maps: "FeatureSet", layer: str, rows: np.ndarray, y: np.ndarray, *, device: torch.device | str = "cpu"
    ) -> None:
        maps.check_layer(layer)
        self._maps, self._rows, self._y = maps, rows, torch.from_numpy(np.asarray(y, np.int64))
        self._layers = [view_of(layer, view) for view in range(maps.views)]
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None

    def drawn(
        self, at: np.ndarray, *, batch_size: int, seed: int, start: int, augment: Augment, ranks: Ranks = ALONE
    ) -> Generator[Batch, None, None]:
        """Yield batches without end, each map in a view that `augment` allows; see `Examples`.

        An example shows all of its views before it shows one again, in an order of its own.
        """
        views = self.views(augment)

        @lru_cache(maxsize=2)
        def turns(cycle: int) -> np.ndarray:
            rng = np.random.default_rng((seed, cycle, BY_VIEWS))
            return rng.permuted(np.tile(views, (len(at), 1)), axis=1)

        def wanted() -> Wanted:
            for places, epochs in draws(len(at), batch_size=batch_size, seed=seed, start=start, ranks=ranks):
                cycles, turn = np.divmod(epochs, len(views))
                chosen = [turns(cycle)[place, i] for cycle, place, i in zip(cycles.tolist(), places, turn, strict=True)]
                yield at[places], np.array(chosen)

        return self._ahead(wanted())

    def plain(self, at: np.ndarray, *, batch_size: int) -> Generator[Batch, None, None]:
        """Yield the maps of the centre views, once and in order; see `Examples`."""
        parts = (at[start : start + batch_size] for start in range(0, len(at), batch_size))
        return self._ahead((part, np.zeros(len(part), np.int64)) for part in parts)

    def views(self, augment: Augment) -> list[int]:
        """Number the views that may be shown: the centre, its mirror image, random crops, of what there is."""
        mirrored = self._maps.recipe.view_flips
        allowed = {0: True, 1: augment.flip} if mirrored else {0: True}
        others = augment.crop and (augment.flip or not mirrored)
        return [view for view in range(self._maps.views) if allowed.get(view, others)]

    def _ahead(self, wanted: Wanted) -> Generator[Batch, None, None]:
        """Read batches on a thread, some before they are asked for."""
        threads = torch.get_num_threads()
        try:
            with Crew() as crew:
                ready: Channel[Batch] = crew.channel(AHEAD)
                crew.start("read maps", partial(self._work, wanted, ready))
                for batch in ready:
                    if self._stream:  # its memory must not be given to the next batch while it is in use here
                        batch.x.record_stream(torch.cuda.current_stream(self._device))
                    yield batch
                crew.check()
        finally:
            torch.set_num_threads(threads)

    def _work(self, wanted: Wanted, ready: Channel[Batch]) -> None:
        torch.set_num_threads(1)  # the others belong to the training
        for at, views in wanted:
            ready.put(self._read(at, views))
        ready.finish()

    def _read(self, at: np.ndarray, views: np.ndarray) -> Batch:
        """Read one map of each example, as they are stored, and only then make them float32: six times as fast."""
        shape, store = self._maps.shapes[self._layers[0]], self._maps.recipe.store
        stored = np.empty((len(at), *shape), store)
        for i, (row, view) in enumerate(zip(self._rows[at].tolist(), views.tolist(), strict=True)):
            stored[i] = self._maps.stored_row(self._layers[view], row)
        return Batch(self._sent(torch.from_numpy(stored)), self._y[at], at)

    def _sent(self, stored: Tensor) -> Tensor:
        """Bring maps to their device, and there to float32, channels last as convolutions take them."""
        last = stored.contiguous(memory_format=torch.channels_last)
        if not self._stream:
            return last.float()
        with torch.cuda.stream(self._stream):
            x = last.pin_memory().to(self._device, non_blocking=True).float()
            self._stream.synchronize()
        return x
