"""Loading: records -> pixels, read and decoded on threads ahead of the network, in order."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from torch import Tensor

from extract import images
from extract.sources import read_bytes
from extract.spec import Failure, Preprocessing, Record, Status

T = TypeVar("T")

NO_DIGEST = bytes(32)
"""Stands for the SHA-256 of bytes that could not be read."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One record after loading: the SHA-256 of its bytes, its pixels (3, H, W) uint8 or a Failure, and the seconds."""

    digest: bytes
    outcome: Tensor | Failure
    read_s: float
    decode_s: float


def load(record: Record, preset: Preprocessing) -> Loaded:
    """Read, hash, decode, resize and crop one image."""
    began = time.perf_counter()
    data = read_bytes(record, images.MAX_BYTES)
    if isinstance(data, Failure):
        return Loaded(NO_DIGEST, data, time.perf_counter() - began, 0.0)
    digest = hashlib.sha256(data).digest()
    read = time.perf_counter()
    try:
        image = images.decode(data)
        outcome = image if isinstance(image, Failure) else images.pixels(image, preset)
    except MemoryError:  # without its digest the row is computed again next time
        digest, outcome = NO_DIGEST, Failure(Status.TOO_LARGE, "too large for the memory that is free")
    return Loaded(digest, outcome, read - began, time.perf_counter() - read)


def content_digest(record: Record) -> bytes | Failure:
    """SHA-256 of the bytes of one record, or why they cannot be read."""
    data = read_bytes(record, images.MAX_BYTES)
    return data if isinstance(data, Failure) else hashlib.sha256(data).digest()


def load_batches(
    records: Iterable[Record], preset: Preprocessing, *, batch_size: int, workers: int
) -> Iterator[list[Loaded]]:
    """Yield the records batch by batch, in order; `workers` threads stay two batches ahead, so memory is bounded."""
    loaded = _ahead(lambda record: load(record, preset), records, workers=workers, window=3 * batch_size)
    while batch := list(islice(loaded, batch_size)):
        yield batch


def content_digests(records: Iterable[Record], *, workers: int) -> Iterator[bytes | Failure]:
    """Yield the content digest of each record, in order."""
    return _ahead(content_digest, records, workers=workers, window=32 * workers)


def _ahead(work: Callable[[Record], T], records: Iterable[Record], *, workers: int, window: int) -> Iterator[T]:
    """Map `work` over the records on threads, in order, never more than `window` of them started and not yet taken.

    (`Executor.map` takes in all of its input before the first result.)
    """
    with ThreadPoolExecutor(workers) as pool:
        todo = iter(records)
        started: deque[Future[T]] = deque(pool.submit(work, record) for record in islice(todo, window))
        try:
            while started:
                yield started.popleft().result()
                started.extend(pool.submit(work, record) for record in islice(todo, 1))
        finally:
            pool.shutdown(cancel_futures=True)
