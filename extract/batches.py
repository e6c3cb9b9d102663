"""Batches: records that travel together from the threads that load them to the lanes that compute them."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from extract.channel import Channel, Crew
from extract.record import Failure, Record

T = TypeVar("T")

RAW_BYTES = 1 << 20
"""Room in a batch for an image to be resized on the device: a photo of 0.35 megapixels on average."""

MAX_RAW_BYTES = 256 << 20
"""Of one batch; what has no room there is resized on the CPU."""


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

    def __init__(self, n_images: int, views: int, side: int, *, raw: bool, pinned: bool) -> None:
        shape = n_images * views, 3, side, side
        self.pixels = torch.zeros(shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        n_bytes = min(n_images * RAW_BYTES, MAX_RAW_BYTES) if raw else 0
        self.raw = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=pinned)
        if pinned:
            self.pixels = self.pixels.pin_memory()


@dataclass(slots=True)
class Batch:
    """Some records on their way: where their pixels are, and what became of each; V views of an image are neighbours.

    An image that failed has pixels without meaning. `raws` are the images whose pixels are not in the buffer yet.
    """

    number: int
    records: Sequence[Record]
    buffer: Buffer
    free: Channel[Buffer]
    permits: Channel[bool]
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

    def make_way(self) -> None:
        """Let one more batch begin, as a batch, this one or another, is out of the way."""
        self.permits.put(True)

    def reserve(self, n_bytes: int) -> slice | None:
        """Take so many bytes of the raw buffer, if they are left."""
        with self.lock:
            if self.raw_used + n_bytes > len(self.buffer.raw):
                return None
            self.raw_used += n_bytes
            return slice(self.raw_used - n_bytes, self.raw_used)


class Feed:
    """Hands out the records one by one, each with its place in a batch."""

    def __init__(
        self, records: Iterable[Record], batch_size: int, free: Channel[Buffer], permits: Channel[bool]
    ) -> None:
        self._records = iter(records)
        self._batch_size = batch_size
        self._free, self._permits = free, permits
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
        """Open the next batch, if it is permitted, there is a buffer for it and records are left."""
        if not self._permits.get(wait=wait):
            return
        if (buffer := self._free.get(wait=wait)) is None:
            self._permits.put(True)
            return
        records = list(islice(self._records, self._batch_size))
        self._over = not records
        n = len(records)
        batch = Batch(self._number, records, buffer, self._free, self._permits, [None] * n, n)
        self._number += 1
        self._places = ((batch, place) for place in range(n))


def in_order(done: Channel[tuple[Batch, T]], crew: Crew) -> Iterator[T]:
    """Yield what became of each batch by their numbers, once all before it are out of the way; then check the crew."""
    early: dict[int, T] = {}
    number = 0
    for batch, made in done:
        early[batch.number] = made
        while number in early:
            batch.make_way()
            yield early.pop(number)
            number += 1
    crew.check()
