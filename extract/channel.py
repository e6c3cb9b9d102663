"""Threads that work together: channels between them, and one end for all of them."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class Ended(Exception):  # noqa: N818 not an error: nothing more goes through
    """The channel was ended, or is finished and empty."""


class Channel(Generic[T]):
    """Items pass from any number of threads to any number of threads, never more than `room` of them under way.

    Without threading's Condition: Ctrl-C may leave that locked for ever, and everyone else waiting for it.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._items: deque[T] = deque()
        self._finished = self._ended = False
        self._lock = threading.Lock()
        self._bells: list[SimpleQueue[None]] = []

    @property
    def exhausted(self) -> bool:
        """Whether it was finished, and not ended, and all items have been taken."""
        with self._lock:
            return self._finished and not self._ended and not self._items

    def put(self, item: T) -> None:
        """Hand an item on, once there is room for it; raises Ended."""
        while True:
            with self._lock:
                if self._ended:
                    raise Ended
                if len(self._items) < self._room:
                    self._ring()
                    self._items.append(item)
                    return
                bell = self._hang_up()
            bell.get()

    def get(self, *, wait: bool = True) -> T | None:
        """Return the next item, and None where there is none yet and nobody is to `wait`; raises Ended."""
        while True:
            with self._lock:
                if self._ended or (self._finished and not self._items):
                    raise Ended
                if self._items:
                    self._ring()
                    return self._items.popleft()
                if not wait:
                    return None
                bell = self._hang_up()
            bell.get()

    def _hang_up(self) -> "SimpleQueue[None]":
        """Return a bell that rings at the next change."""
        self._bells.append(SimpleQueue())
        return self._bells[-1]

    def _ring(self) -> None:
        """Wake everyone who waits, just before a change: if Ctrl-C comes in between, none of them misses it."""
        for bell in self._bells:
            bell.put(None)
        self._bells.clear()

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
        with self._lock:
            self._ring()
            self._finished = True

    def end(self) -> None:
        """Let go everyone who waits, now; items under way are dropped."""
        with self._lock:
            self._ring()
            self._ended = True


class Crew:
    """Threads and the channels between them: what one of them raises ends all of them, and comes out of `check`.

    Leaving it ends all threads and waits for them; where it is left because a channel has ended, it raises what a
    thread raised. What threads raise once they have been let go is of no account.
    """

    def __init__(self) -> None:
        self._threads: list[tuple[threading.Thread, Channel[None]]] = []
        self._channels: list[Channel[Any]] = []
        self._ended = False
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end()
        self.join()
        if kind is Ended:
            self.check()

    def channel(self, room: int) -> "Channel[Any]":
        """Make a channel that ends with the crew."""
        channel = Channel(room)
        with self._lock:
            self._channels.append(channel)
            ended = self._ended
        if ended:
            channel.end()
        return channel

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Start a thread that works until it is done, or a channel that it waits for has ended."""
        gone = Channel(1)
        thread = threading.Thread(target=self._run, args=(work, gone), name=name, daemon=True)
        self._threads.append((thread, gone))
        thread.start()

    def _run(self, work: Callable[[], None], gone: Channel[None]) -> None:
        try:
            work()
        except Ended:
            pass
        except BaseException as error:  # it belongs to whoever asked for the work, in another thread
            with self._lock:
                if not self._ended:  # else it comes of having been let go
                    self._error, self._ended = error, True
            self.end()
        finally:
            gone.finish()

    def end(self) -> None:
        """Let all threads go, now."""
        with self._lock:
            self._ended = True
        for channel in self._channels:
            channel.end()

    def join(self) -> None:
        """Wait until all threads have gone."""
        for thread, gone in self._threads:
            if thread.is_alive():  # one that could not be started cannot be joined
                list(gone)  # Python takes a thread for ended that Ctrl-C came in the way of joining
                thread.join()

    def check(self) -> None:
        """Raise what a thread raised first, if one did."""
        if self._error is not None:
            raise self._error
