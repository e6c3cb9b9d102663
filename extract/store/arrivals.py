"""Shards on their way into the cache: fetched by a relay, or there at once."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

from extract.store.reader import SHARDS
from extract.store.relay import Relay

FETCHES = 4
"""Files that are fetched at the same time: each waits for its answer, and then a core proves it."""


class Arrivals:
    """Shards on their way from a relay into the folder of a feature set, some at a time, in groups.

    As a context manager it leaves no thread behind: what is under way on leaving comes to its end, and nothing else.
    """

    def __init__(self, relay: Relay, folder: Path, key: str) -> None:
        self._relay, self._folder, self._key = relay, folder, key
        self._crew = ThreadPoolExecutor(FETCHES, "fetch")
        self._coming: dict[Future[str], Any] = {}
        self._come: SimpleQueue[Future[str]] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.shutdown(wait=False, cancel_futures=True)
        self._relay.stop()
        self._crew.shutdown()

    @property
    def left(self) -> int:
        """How many groups have not come."""
        return len(self._coming)

    def expect(self, what: Any, names: Iterable[str]) -> None:
        """Fetch the shards of these names; `what` stands for them."""
        future = self._crew.submit(self._fetch, tuple(names))
        self._coming[future] = what
        future.add_done_callback(self._come.put)

    def _fetch(self, names: Sequence[str]) -> str:
        refused = (self._relay.fetch(f"{SHARDS}/{name}", self._folder, self._key) for name in names)
        return next(filter(None, refused), "")

    def here(self, timeout_s: float = 0.0) -> Iterator[tuple[Any, str]]:
        """Yield what has come, with "" or why one of them was refused; within so many seconds that may be nothing.

        Raises StoreError where the relay cannot be read, or the folder not written.
        """
        try:
            future = self._come.get(timeout=timeout_s) if timeout_s else self._come.get_nowait()
            while True:
                yield self._coming.pop(future), future.result()
                future = self._come.get_nowait()
        except Empty:
            return


class AtOnce:
    """Shards that need no way: they lie in the folder before they are expected."""

    def __init__(self) -> None:
        self._here: list[Any] = []

    @property
    def left(self) -> int:
        """How many groups have not been taken."""
        return len(self._here)

    def expect(self, what: Any, names: Iterable[str]) -> None:
        """Note what stands for some shards."""
        self._here.append(what)

    def here(self, timeout_s: float = 0.0) -> Iterator[tuple[Any, str]]:
        """Yield what has come: all."""
        while self._here:
            yield self._here.pop(0), ""
