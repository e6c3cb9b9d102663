"""What is left to do of a job, for workers that may die: which shards wait, which are under way, which have failed."""

import time
from collections import Counter, deque
from dataclasses import dataclass

STRAGGLER = 3.0
"""Times the mean time of a shard after which a second worker may take one that is under way."""

STRAGGLER_S = 30.0
"""Nor before so many seconds: what is soon over is not done twice."""


@dataclass(slots=True)
class Going:
    """A shard under way: since when, and with how many workers."""

    since: float
    workers: int = 1


class Todo:
    """Shards by their numbers: each waits, is under way with one worker or two, is done, or has failed `tries` times.

    `failed` has of those that are given up their number and why they failed last. It knows nothing of what they hold,
    and so a million of them take some ten megabytes.
    """

    def __init__(self, n_shards: int, tries: int) -> None:
        self.failed: list[tuple[int, str]] = []
        self._tries = tries
        self._waiting = deque(range(n_shards))
        self._going: dict[int, Going] = {}
        self._failures: Counter[int] = Counter()
        self._done, self._seconds = 0, 0.0

    @property
    def left(self) -> int:
        """How many are neither done nor given up."""
        return len(self._waiting) + len(self._going)

    def take(self) -> int | None:
        """Take one for a worker that is free: the next that waits, else the slowest, if it takes strangely long."""
        if self._waiting:
            number = self._waiting.popleft()
            self._going[number] = Going(time.monotonic())
            return number
        if (number := self._straggler()) is not None:
            self._going[number].workers += 1
        return number

    def _straggler(self) -> int | None:
        alone = [(going.since, number) for number, going in self._going.items() if going.workers == 1]
        if not alone or not self._done:
            return None
        since, number = min(alone)
        patience_s = max(STRAGGLER_S, STRAGGLER * self._seconds / self._done)
        return number if time.monotonic() - since > patience_s else None

    def done(self, number: int) -> bool:
        """Note that one is on disk, and tell whether another worker is still at it, which is of no use any more."""
        going = self._going.pop(number)
        self._seconds += time.monotonic() - going.since
        self._done += 1
        return going.workers > 1

    def fail(self, number: int, reason: str) -> None:
        """Note that a worker failed at one: it waits again, unless another worker is at it or it failed too often."""
        self._failures[number] += 1
        self._going[number].workers -= 1
        if not self._going[number].workers:
            del self._going[number]
            self._put_back(number, reason)

    def again(self, number: int, reason: str) -> None:
        """Note that what was made of one that is done is lost: it waits again, unless it failed too often."""
        self._failures[number] += 1
        self._put_back(number, reason)

    def _put_back(self, number: int, reason: str) -> None:
        if self._failures[number] < self._tries:
            self._waiting.append(number)
        else:
            self.failed.append((number, reason))
