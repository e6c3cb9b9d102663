"""Loading: records -> batches of pixels, ahead of the network: decoded in processes, resized on threads.

Each thread keeps a process of `decoding` busy, whose decoder may do to it what it will, and resizes what comes back
into its place in a batch. All threads fill one batch together, so that it is soon done.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch

from extract.batches import Batch, Buffer, Feed, Loaded, Raw
from extract.channel import Channel, Crew, Ended
from extract.decoding import Decoded, Decoder, allow_decoders
from extract.images import DECODERS
from extract.recipe import Preprocessing, Recipe
from extract.record import Failure, Record
from extract.resample import ON_A_DEVICE, render
from extract.trace import Trace
from extract.views import Augment, Look, looks, training_look


@dataclass(frozen=True, slots=True)
class Drawn(Record):
    """A training image, at which one look is drawn: number `draw` of those of a `seed`, as `augment` says.

    (See `views.training_look`.) It depends on nothing else but the content of the image.
    """

    seed: int = 0
    draw: int = 0
    augment: Augment = (False, False, (1.0, 1.0))

    def looks(self, shape: Sequence[int], preset: Preprocessing, digest: bytes) -> tuple[Look] | Failure:
        """Return that one look at the image of that shape (H, W, ...), whose file has that SHA-256."""
        high, wide = shape[:2]
        look = training_look(high, wide, preset, digest=digest, seed=self.seed, draw=self.draw, augment=self.augment)
        return look if isinstance(look, Failure) else (look,)


@dataclass(frozen=True, slots=True)
class Sight:
    """How images are looked at: the network's own preprocessing, so many views of each, and how they are decoded."""

    preset: Preprocessing
    views: int = 1
    view_seed: int = 0
    decoder: str = "exact"
    view_flips: bool = True

    @classmethod
    def of(cls, recipe: Recipe) -> "Sight":
        """Return how the images of a recipe are looked at."""
        [decoder] = [name for name, policy in DECODERS.items() if policy == recipe.decoder]
        return cls(recipe.preprocessing, recipe.views, recipe.view_seed, decoder, recipe.view_flips)

    @property
    def short_px(self) -> int | None:
        """The shorter side that a JPEG keeps at least, where it may be scaled as it is decoded."""
        return 2 * self.preset.resize_size if self.decoder == "scaled" else None

    def looks(self, record: Record, shape: Sequence[int], digest: bytes) -> tuple[Look, ...] | Failure:
        """Return the views of a record's image of that shape (H, W, ...), whose file has that SHA-256."""
        if isinstance(record, Drawn):
            return record.looks(shape, self.preset, digest)
        high, wide = shape[:2]
        seed, flips = self.view_seed, self.view_flips
        return looks(high, wide, self.preset, digest=digest, views=self.views, seed=seed, flips=flips)


class Loader:
    """Loads images on up to `workers` threads, each with a process that decodes; they live until `close`.

    It fills `buffers` batches of `batch_size` at most, and begins none while twice as many are under way. `on_gpu`
    leaves images to their device to be resized, in memory that a GPU reads by itself. A `trace` is told of every image.
    Use it as a context manager.
    """

    def __init__(
        self,
        sight: Sight,
        *,
        workers: int,
        batch_size: int,
        buffers: int = 3,
        on_gpu: bool = False,
        trace: Trace | None = None,
    ) -> None:
        self.sight = sight
        self.batch_size = batch_size
        self.workers = workers
        self._trace = trace
        self._raw = on_gpu and sight.preset.interpolation in ON_A_DEVICE
        pinned = on_gpu and torch.cuda.is_available()
        shape = batch_size, sight.views, sight.preset.crop_size
        self._buffers = [Buffer(*shape, raw=self._raw, pinned=pinned) for _ in range(buffers)]
        allow_decoders(workers)
        self._decoders = [Decoder(sight.short_px, leave_jpeg=sight.decoder == "gpu") for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the processes, so that no image waits for them; raises DecoderError."""
        with Crew() as crew:
            try:
                for decoder in self._decoders:
                    crew.start("start", decoder.start)
                crew.join()
                crew.check()
            except BaseException:  # leaving waits for all, and one may never get ready
                self.kill()
                raise

    def run(self, records: Iterable[Record], crew: Crew) -> Channel[Batch]:
        """Load the records on threads of `crew`: -> a channel of batches.

        The buffer of each is to be given back by its `release`, and each is to `make_way` once it is out of the way.
        """
        n = len(self._buffers)
        ready, free, permits = crew.channel(n), crew.channel(n), crew.channel(2 * n)
        for buffer in self._buffers:
            free.put(buffer)
        for _ in range(2 * n):
            permits.put(True)
        feed = Feed(records, self.batch_size, free, permits)
        going = set(self._decoders)

        def work(decoder: Decoder) -> None:
            torch.set_num_threads(1)
            self._load(decoder, feed, ready)
            going.discard(decoder)
            if not going:  # of two that see it, both may say so
                ready.finish()

        for i, decoder in enumerate(self._decoders):
            crew.start(f"load {i}", partial(work, decoder))
        return ready

    def _load(self, decoder: Decoder, feed: Feed, ready: Channel[Batch]) -> None:
        """Keep one decoder busy, and bring what it makes into the batches, until there are no more records."""
        asked: deque[tuple[Batch, int]] = deque()
        try:
            while True:
                while not decoder.full and (claimed := feed.claim(wait=not asked)):
                    asked.append(claimed)
                    decoder.submit(claimed[0].records[claimed[1]])
                if not asked:
                    return
                batch, place = asked.popleft()
                began = time.perf_counter()
                item = self._bring(decoder.answer(), batch, place)
                if self._trace:
                    said = item.failure.reason if item.failure else "ok"
                    self._trace.span("image", began, time.perf_counter(), id=batch.records[place].id, outcome=said)
                if batch.note(place, item):
                    ready.put(batch)
        except Ended:
            for _ in asked:  # no one takes them any more; the process goes on to serve the next run
                decoder.answer()
            raise
        except BaseException:
            decoder.stop()  # its answers belong to no one any more
            raise

    def _bring(self, decoded: Decoded, batch: Batch, place: int) -> Loaded:
        """Bring an image into its place, or to where its device will find it."""
        began, failure = time.thread_time(), None
        if isinstance(decoded.outcome, Failure):
            failure = decoded.outcome
        elif decoded.outcome.ndim == 1:
            jpeg = torch.from_numpy(decoded.outcome.copy())
            batch.raws.append(Raw(place, decoded.digest, slice(0), (), jpeg))
        elif not (self._raw and self._leave(decoded, batch, place)):
            failure = self._render(decoded.outcome, decoded.digest, batch, place)
        took = time.thread_time() - began
        return Loaded(decoded.digest, failure, decoded.read_s, decoded.decode_s + took)

    def _leave(self, decoded: Decoded, batch: Batch, place: int) -> bool:
        """Copy an image for its device to resize, if there is room for it and it is one that can be resized."""
        image = decoded.outcome
        assert isinstance(image, np.ndarray)  # noqa: S101 the caller has looked
        if (
            isinstance(self.sight.looks(batch.records[place], image.shape, decoded.digest), Failure)
            or (at := batch.reserve(image.size)) is None
        ):
            return False
        batch.buffer.raw[at] = torch.from_numpy(image).reshape(-1)
        batch.raws.append(Raw(place, decoded.digest, at, image.shape))
        return True

    def _render(self, image: np.ndarray, digest: bytes, batch: Batch, place: int) -> Failure | None:
        """Resize an image and crop it, once for each view."""
        chosen = self.sight.looks(batch.records[place], image.shape, digest)
        if isinstance(chosen, Failure):
            return chosen
        for i, look in enumerate(chosen, place * self.sight.views):
            render(image, look, self.sight.preset.interpolation, batch.buffer.pixels[i])
        return None

    def kill(self) -> None:
        """Set free every thread that waits for a process; those threads raise, and the loader is of no use any more."""
        for decoder in self._decoders:
            decoder.kill()

    def close(self) -> None:
        """End all processes; for when no thread waits any more."""
        for decoder in self._decoders:
            decoder.close()
