"""Loading: records -> batches of pixels, ahead of the network: decoded in processes, resized on threads.

Each thread keeps a process of `decoding` busy, whose decoder may do to it what it will, and resizes what comes back
into its place in a batch. All threads fill one batch together, so that it is soon done.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Self

import numpy as np
import torch
from torch import Tensor

from extract.channel import Channel, Crew
from extract.decoding import Decoded, Decoder
from extract.images import DECODERS
from extract.resample import ON_A_DEVICE, render
from extract.spec import Failure, Preprocessing, Recipe, Record
from extract.trace import Trace
from extract.views import Look, looks

RAW_BYTES = 1 << 20
"""Room in a batch for an image to be resized on the device: a photo of 0.35 megapixels on average."""


@dataclass(frozen=True, slots=True)
class Sight:
    """How images are looked at: the network's own preprocessing, so many views of each, and how they are decoded."""

    preset: Preprocessing
    views: int = 1
    view_seed: int = 0
    decoder: str = "exact"

    @classmethod
    def of(cls, recipe: Recipe) -> "Sight":
        """Return how the images of a recipe are looked at."""
        [decoder] = [name for name, policy in DECODERS.items() if policy == recipe.decoder]
        return cls(recipe.preprocessing, recipe.views, recipe.view_seed, decoder)

    @property
    def short_px(self) -> int | None:
        """The shorter side that a JPEG keeps at least, where it may be scaled as it is decoded."""
        return 2 * self.preset.resize_size if self.decoder == "scaled" else None


@dataclass(frozen=True, slots=True)
class Loaded:
    """One record after loading: the SHA-256 of its bytes, why it has no pixels, if so, and the seconds it took.

    `read_s` is by the clock; `decode_s`, to decode and resize, is CPU time.
    """

    digest: bytes
    failure: Failure | None
    read_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Raw:
    """An image that its device is still to decode or to resize: its place in the batch, and its pixels or its JPEG."""

    place: int
    digest: bytes
    at: slice
    shape: tuple[int, ...]
    jpeg: Tensor | None = None


class Buffer:
    """Memory of one batch, used again and again: `pixels` (n V, 3, S, S) uint8, channels last; `raw` bytes."""

    def __init__(self, n_images: int, sight: Sight, *, raw: bool, pinned: bool) -> None:
        side = sight.preset.crop_size
        shape = n_images * sight.views, 3, side, side
        self.pixels = torch.zeros(shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        self.raw = torch.zeros(n_images * RAW_BYTES if raw else 0, dtype=torch.uint8)
        if pinned:
            self.pixels, self.raw = self.pixels.pin_memory(), self.raw.pin_memory()


@dataclass(slots=True)
class Batch:
    """Some records on their way: where their pixels are, and what became of each; V views of an image are neighbours.

    An image that failed has pixels without meaning. `raws` are the images whose pixels are not in the buffer yet.
    """

    number: int
    records: Sequence[Record]
    buffer: Buffer
    free: Channel[Buffer]
    items: list[Loaded | None] = field(default_factory=list)
    left: int = 0
    raws: list[Raw] = field(default_factory=list)
    raw_used: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def loaded(self) -> list[Loaded]:
        """What became of each record, once all are done."""
        return [item for item in self.items if item is not None]

    def note(self, place: int, item: Loaded) -> bool:
        """Write down what became of a record, and tell whether it was the last one."""
        with self.lock:
            self.items[place] = item
            self.left -= 1
            return not self.left

    def release(self) -> None:
        """Give the buffer back."""
        self.free.put(self.buffer)

    def reserve(self, n_bytes: int) -> slice | None:
        """Take so many bytes of the raw buffer, if they are left."""
        with self.lock:
            if self.raw_used + n_bytes > len(self.buffer.raw):
                return None
            self.raw_used += n_bytes
            return slice(self.raw_used - n_bytes, self.raw_used)


class Loader:
    """Loads images on up to `workers` threads, each with a process that decodes; they live until `close`.

    `buffers` batches of `batch_size` are under way at most. `on_gpu` leaves images to a GPU to be resized, in memory
    that it reads by itself. A `trace` is told of every image. Use it as a context manager.
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
        self._buffers = [Buffer(batch_size, sight, raw=self._raw, pinned=on_gpu) for _ in range(buffers)]
        self._decoders = [Decoder(sight.short_px, leave_jpeg=sight.decoder == "gpu") for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the processes, so that no image waits for them; raises DecoderError."""
        with Crew() as crew:
            for decoder in self._decoders:
                crew.start("start", decoder.start)
            crew.join()
            crew.check()

    def run(self, records: Iterable[Record], crew: Crew) -> Channel[Batch]:
        """Load the records on threads of `crew`: -> a channel of batches, each to be given back by its `release`."""
        ready, free = crew.channel(len(self._buffers)), crew.channel(len(self._buffers))
        for buffer in self._buffers:
            free.put(buffer)
        feed = Feed(records, self.batch_size, free)
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

    def _load(self, decoder: Decoder, feed: "Feed", ready: Channel[Batch]) -> None:
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
        if isinstance(self._looks(image.shape, decoded.digest), Failure) or (at := batch.reserve(image.size)) is None:
            return False
        batch.buffer.raw[at] = torch.from_numpy(image).reshape(-1)
        batch.raws.append(Raw(place, decoded.digest, at, image.shape))
        return True

    def _render(self, image: np.ndarray, digest: bytes, batch: Batch, place: int) -> Failure | None:
        """Resize an image and crop it, once for each view."""
        chosen = self._looks(image.shape, digest)
        if isinstance(chosen, Failure):
            return chosen
        for i, look in enumerate(chosen, place * self.sight.views):
            render(image, look, self.sight.preset.interpolation, batch.buffer.pixels[i])
        return None

    def _looks(self, shape: Sequence[int], digest: bytes) -> tuple[Look, ...] | Failure:
        sight = self.sight
        return looks(shape[0], shape[1], sight.preset, digest=digest, views=sight.views, seed=sight.view_seed)

    def kill(self) -> None:
        """Set free every thread that waits for a process; those threads raise, and the loader is of no use any more."""
        for decoder in self._decoders:
            decoder.kill()

    def close(self) -> None:
        """End all processes; for when no thread waits any more."""
        for decoder in self._decoders:
            decoder.close()


class Feed:
    """Hands out the records one by one, each with its place in a batch."""

    def __init__(self, records: Iterable[Record], batch_size: int, free: Channel[Buffer]) -> None:
        self._records = iter(records)
        self._batch_size = batch_size
        self._free = free
        self._places: Iterator[tuple[Batch, int]] = iter(())
        self._number = 0
        self._lock = threading.Lock()
        self._over = False

    def claim(self, *, wait: bool) -> tuple[Batch, int] | None:
        """Return the next place to fill; None where there is none any more, or none yet and nobody is to `wait`.

        Who holds places that are not filled must not wait: the buffer that it waits for may need them.
        """
        if not self._lock.acquire(blocking=wait):  # someone waits for a buffer, holding it
            return None
        try:
            if (claimed := next(self._places, None)) is None and not self._over:
                self._open(wait=wait)
                claimed = next(self._places, None)
            return claimed
        finally:
            self._lock.release()

    def _open(self, *, wait: bool) -> None:
        """Open the next batch, if there is a buffer for it and records are left."""
        buffer = self._free.get(wait=wait)
        if buffer is None:
            return
        records = list(islice(self._records, self._batch_size))
        self._over = not records
        batch = Batch(self._number, records, buffer, self._free, [None] * len(records), len(records))
        self._number += 1
        self._places = ((batch, place) for place in range(len(records)))
