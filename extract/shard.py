"""Shards: batches that are done -> files of some hundred rows each -> receipts. Written while the next are computed."""

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from extract.channel import Channel, Crew
from extract.lanes import STAGES, Done, Stream
from extract.record import Record
from extract.store.shards import Rows, write_shard

SHARD_S = 60.0
"""Seconds after which the rows that are done become a shard: a killed run loses no more than a minute."""


@dataclass(slots=True)
class Stages:
    """Seconds of each stage, shared out over all that work on it at the same time."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def add(self, seconds: dict[str, float]) -> None:
        """Add the seconds of a batch, or of other stages."""
        for name, value in seconds.items():
            self.seconds[name] += value


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of some records: the file of their rows, how many there are and how many are bad, and the seconds.

    `span` is when its first batch was asked for and when it was on disk, in seconds since the epoch; `runner` what ran
    the network.
    """

    name: str
    rows: int
    bad: int
    stages: Stages
    span: tuple[float, float]
    runner: str


class Filling:
    """The rows of the shard that is being filled."""

    def __init__(self, stream: Stream, most: int, *, whole: bool = False) -> None:
        self._recipe, self._writer = stream.extractor.recipe, {**stream.extractor.writer, "runner": stream.runner.name}
        shapes, store = stream.extractor.shapes, self._recipe.store
        layers = {name: np.empty((most, *shape), store) for name, shape in shapes.items()}
        self._rows = Rows(layers, np.zeros((most, 32), np.uint8), [])
        self._most, self._whole = most, whole
        self._trace = stream.trace
        self._stages = Stages()
        self._began = time.time()
        self.n = 0

    def takes(self, done: Done) -> bool:
        """Whether a batch belongs into this shard: there is room, and it has not been open for too long."""
        late = not self._whole and time.time() - self._began >= SHARD_S
        return self.n == 0 or (self.n + len(done.items) <= self._most and not late)

    def add(self, done: Done) -> None:
        """Take the rows of a batch."""
        end = self.n + len(done.items)
        for name, values in done.rows.items():
            self._rows.layers[name][self.n : end] = values
        self._rows.digests[self.n : end] = [np.frombuffer(item.digest, np.uint8) for item in done.items]
        self._rows.failures.extend(item.failure for item in done.items)
        self._stages.add(done.seconds)
        self.n = end  # last: where Ctrl-C comes in between, these rows do not count

    def write(self, folder: Path) -> Receipt:
        """Write the shard, and say what was done."""
        began = time.perf_counter()
        kept = self._rows.first(self.n)
        name = write_shard(folder, kept, self._recipe.key, json.dumps(self._writer))
        ended = time.perf_counter()
        self._stages.add({"write": ended - began})
        if self._trace:
            self._trace.span("shard", began, ended, file=name, rows=self.n)
        return Receipt(name, self.n, kept.bad, self._stages, (self._began, time.time()), self._writer["runner"])


class Writer:
    """Writes shards on a thread of its own, while the next ones are filled."""

    def __init__(self, crew: Crew, folder: Path) -> None:
        self._crew, self._folder = crew, folder
        self._full: Channel[Filling] = crew.channel(1)
        self._made: list[Receipt] = []
        self._taken = 0
        crew.start("write", self._work)

    def put(self, filling: Filling) -> None:
        """Hand over what is full; waits where one is being written and another waits already."""
        self._full.put(filling)

    def receipts(self) -> Iterator[Receipt]:
        """Yield the receipts that are new."""
        while self._taken < len(self._made):
            self._taken += 1
            yield self._made[self._taken - 1]

    def finish(self, filling: Filling) -> Iterator[Receipt]:
        """Hand over the last one, unless it is empty, and yield receipts until all are written."""
        if filling.n:
            self.put(filling)
        self.wait()
        yield from self.receipts()
        self._crew.check()

    def wait(self) -> None:
        """Wait until all that was handed over is written."""
        self._full.finish()
        self._crew.join()

    def _work(self) -> None:
        last = None
        for filling in self._full:
            if filling is not last:  # as it may be where Ctrl-C came just after it was handed over
                self._made.append(filling.write(self._folder))
            last = filling


def write_shards(
    stream: Stream,
    records: Iterable[Record],
    folder: Path,
    *,
    most: int,
    on_rows: Callable[[int, int], None] = lambda *_: None,
    whole: bool = False,
) -> Generator[Receipt, None, None]:
    """Write the rows of the records as shards of `most` rows into `folder`, and yield a receipt for each.

    `on_rows` is called after every batch with the number of its rows and of the bad ones among them. `whole` shards
    have `most` rows however long they take: the same records always make the same files. At Ctrl-C the rows that are
    done are written, and KeyboardInterrupt follows. Raises StoreError where a shard cannot be written.
    """
    filling, stopped = Filling(stream, most, whole=whole), False
    with Crew() as crew, stream.flow(records) as batches:
        writer = Writer(crew, folder)
        try:
            for done in batches:
                if not filling.takes(done):
                    writer.put(filling)
                    filling = Filling(stream, most, whole=whole)
                filling.add(done)
                on_rows(len(done.items), sum(item.failure is not None for item in done.items))
                yield from writer.receipts()
            yield from writer.finish(filling)
        except KeyboardInterrupt:
            stopped = True
            yield from writer.finish(filling)
        finally:
            writer.wait()
    if stopped:
        raise KeyboardInterrupt
