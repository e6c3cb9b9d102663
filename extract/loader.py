"""Loading: records -> pixels, in order and ahead of the network: read on threads, decoded in processes.

Each thread reads and hashes a file, and waits for a process of `decoding` to make pixels of it: what a decoder does to
its process costs one row.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Self, TypeVar

import torch
from torch import Tensor

from extract import images
from extract.decoding import Decoders
from extract.sources import read_bytes
from extract.spec import Failure, Preprocessing, Record

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


class Loader:
    """Loads images for one preset on up to `workers` threads, each with a process that decodes.

    Threads and processes are started as they are needed and live until `close`; use it as a context manager.
    """

    def __init__(self, preset: Preprocessing, *, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers)
        self._decoders = Decoders(preset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def batches(self, records: Iterable[Record], batch_size: int) -> Generator[list[Loaded], None, None]:
        """Yield the records batch by batch, in order; two batches ahead of what is taken, so memory is bounded.

        Raises DecoderError where no process can be started.
        """
        with closing(_ahead(self._threads, self.load, records, window=3 * batch_size)) as loaded:
            while batch := list(islice(loaded, batch_size)):
                yield batch

    def load(self, record: Record) -> Loaded:
        """Read, hash, decode, resize and crop one image."""
        began = time.perf_counter()
        data = read_bytes(record, images.MAX_BYTES)
        if isinstance(data, Failure):
            return Loaded(NO_DIGEST, data, time.perf_counter() - began, 0.0)
        digest = hashlib.sha256(data).digest()
        read = time.perf_counter()
        decoded = self._decoders.decode(data)
        outcome = decoded if isinstance(decoded, Failure) else torch.from_numpy(decoded)
        return Loaded(digest, outcome, read - began, time.perf_counter() - read)

    def close(self) -> None:
        """Drop what was not begun, cut short what was, and leave no thread and no process behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._decoders.kill()
        self._threads.shutdown()
        self._decoders.close()


def content_digest(record: Record) -> bytes | Failure:
    """SHA-256 of the bytes of one record, or why they cannot be read."""
    data = read_bytes(record, images.MAX_BYTES)
    return data if isinstance(data, Failure) else hashlib.sha256(data).digest()


def content_digests(records: Iterable[Record], *, workers: int) -> Iterator[bytes | Failure]:
    """Yield the content digest of each record, in order."""
    with (
        ThreadPoolExecutor(workers) as threads,
        closing(_ahead(threads, content_digest, records, 32 * workers)) as all_,
    ):
        yield from all_


def _ahead(
    threads: Executor, work: Callable[[Record], T], records: Iterable[Record], window: int
) -> Generator[T, None, None]:
    """Map `work` over the records on threads, in order, never more than `window` of them started and not yet taken.

    (`Executor.map` takes in all of its input before the first result.)
    """
    todo = iter(records)
    started: deque[Future[T]] = deque()
    try:
        started.extend(threads.submit(work, record) for record in islice(todo, window))
        while started:
            yield started.popleft().result()
            started.extend(threads.submit(work, record) for record in islice(todo, 1))
    finally:
        for future in started:
            future.cancel()
