"""The content of every image: the SHA-256 of its bytes, without reading the files that did not change."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from extract.images import MAX_BYTES
from extract.progress import Progress
from extract.record import Failure, Record
from extract.sources import read_bytes
from extract.store.known import Known, Signature, settled, signature_of


@dataclass(frozen=True, slots=True)
class Contents:
    """The SHA-256 of every record's bytes, or why they cannot be read; what to remember of the files, if it is new."""

    digests: list[bytes | Failure]
    known: dict[str, tuple[Signature, bytes]]
    changed: bool


def find_contents(
    records: Sequence[Record],
    known: Known,
    *,
    workers: int,
    progress: Progress,
    remember: Callable[[dict[str, tuple[Signature, bytes]]], None],
) -> Contents:
    """Look up what is known, and read the other files; Ctrl-C has `remember` note what was read until then."""
    began_ns = time.time_ns()
    signatures = [signature_of(record) for record in records]
    found = [known.digest(record, signature) for record, signature in zip(records, signatures, strict=True)]
    unread = [i for i, digest in enumerate(found) if digest is None]
    digests: list[bytes | Failure] = [digest or b"" for digest in found]
    progress.start("hash", len(unread))
    try:
        for i, digest in zip(unread, content_digests((records[i] for i in unread), workers=workers), strict=True):
            digests[i] = digest
            if not _to_remember(records[i], signatures[i], began_ns):
                signatures[i] = None
            progress.advance(1)
    except KeyboardInterrupt:
        remember(_known_now(records, signatures, digests))
        raise
    by_id = _known_now(records, signatures, digests)
    return Contents(digests, by_id, changed=by_id != known.by_id)


def _known_now(
    records: Sequence[Record], signatures: Sequence[Signature | None], digests: Sequence[bytes | Failure]
) -> dict[str, tuple[Signature, bytes]]:
    found = zip(records, signatures, digests, strict=True)
    return {r.id: (s, d) for r, s, d in found if s is not None and isinstance(d, bytes) and d}


def _to_remember(record: Record, signature: Signature | None, read_ns: int) -> bool:
    """Tell whether a file that was read from `read_ns` on was one and the same all the time, and will show a change."""
    return signature is not None and settled(signature, read_ns) and signature_of(record) == signature


def content_digest(record: Record) -> bytes | Failure:
    """SHA-256 of the bytes of one record, or why they cannot be read."""
    data = read_bytes(record, MAX_BYTES)
    return data if isinstance(data, Failure) else hashlib.sha256(data).digest()


def content_digests(records: Iterable[Record], *, workers: int) -> Iterator[bytes | Failure]:
    """Yield the content digest of each record, in order, never far ahead of what is taken.

    (`Executor.map` takes in all of its input before the first result.)
    """
    todo = iter(records)
    started: deque[Future[bytes | Failure]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            started.extend(threads.submit(content_digest, record) for record in islice(todo, 32 * workers))
            while started:
                yield started.popleft().result()
                started.extend(threads.submit(content_digest, record) for record in islice(todo, 1))
        finally:
            for future in started:
                future.cancel()
