"""Threads that work together: channels between them, and one end for all of them."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class Ended(Exception):  # noqa: N818 not an error: nothing more goes through
    """The channel was ended, or is finished and empty."""


class Channel(Generic[T]):
    """Items pass from any number of threads to any number of threads, never more than `room` of them under way."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._items: deque[T] = deque()
        self._finished = self._ended = False
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Hand an item on, once there is room for it; raises Ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._items) < self._room)
            if self._ended:
                raise Ended
            self._items.append(item)
            self._changed.notify_all()

    def get(self, *, wait: bool = True) -> T | None:
        """Return the next item, and None where there is none yet and nobody is to `wait`; raises Ended."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._ended or self._finished or self._items)
            if self._ended or (self._finished and not self._items):
                raise Ended
            if not self._items:
                return None
            self._changed.notify_all()
            return self._items.popleft()

    def __iter__(self) -> Iterator[T]:
        """Yield items until there will be no more."""
        while True:
            try:
                item = self.get()
            except Ended:
                return
            if item is not None:
                yield item

    def finish(self) -> None:
        """Say that no more items will come; those under way still pass."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def end(self) -> None:
        """Let go everyone who waits, now; items under way are dropped."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Crew:
    """Threads and the channels between them: what one of them raises ends all of them, and comes out of `check`."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._channels: list[Channel[Any]] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.join()

    def channel(self, room: int) -> "Channel[Any]":
        """Make a channel that ends with the crew."""
        self._channels.append(Channel(room))
        return self._channels[-1]

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Start a thread that works until it is done, or a channel that it waits for has ended."""
        thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Ended:
            pass
        except BaseException as error:  # it belongs to whoever asked for the work, in another thread
            with self._lock:
                self._error = self._error or error
            self.end()

    def end(self) -> None:
        """Let all threads go, now."""
        for channel in self._channels:
            channel.end()

    def join(self) -> None:
        """Wait until all threads have gone."""
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise what a thread raised first, if one did."""
        if self._error is not None:
            raise self._error
