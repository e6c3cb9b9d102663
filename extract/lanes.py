"""Lanes: threads that each run the network on one batch at a time, side by side.

On a CPU there is a lane for every core, with operators that keep to one thread: no operator waits for the slowest
core, and whatever a core has to spare goes to reading and decoding. A GPU has two lanes, each with a stream of its
own: while the network works on one batch, the pixels of the next one are brought there.
"""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from extract.batches import Batch, Loaded, in_order
from extract.channel import Channel, Crew
from extract.forward import Extractor, not_finite
from extract.loader import Loader, Sight
from extract.pixels import Bringer, enough_memory
from extract.recipe import view_of
from extract.record import Record
from extract.runners import Runner
from extract.spec import available_cores
from extract.trace import Trace

GPU_LANES = 2
STAGES = ("read", "decode", "transfer", "forward", "write")


def lanes_on(device: torch.device, share: int = 1) -> int:
    """Return how many lanes a device has, where so many processes share the cores."""
    return max(1, available_cores() // share) if device.type == "cpu" else GPU_LANES


@dataclass(frozen=True, slots=True)
class Done:
    """A batch behind the network: what became of each record, and its rows by layer, (n, *shape); NaN for failures.

    `seconds` tells for each stage how long it took, shared out over all that work on that stage at the same time.
    """

    items: list[Loaded]
    rows: dict[str, np.ndarray]
    seconds: dict[str, float]

    @property
    def good(self) -> np.ndarray:
        """Which records have rows (n,) bool."""
        return np.array([item.failure is None for item in self.items], bool)


class Stream:
    """Records flow through the loader and the lanes, and come out in order.

    `lanes` threads run the network; a `trace` is told what all threads do.
    """

    def __init__(
        self, extractor: Extractor, runner: Runner, loader: Loader, *, lanes: int, trace: Trace | None = None
    ) -> None:
        self.extractor, self.runner, self._loader = extractor, runner, loader
        self._lanes, self.trace = lanes, trace

    def run(self, records: Iterable[Record]) -> Generator[Done, None, None]:
        """Yield the records batch by batch, in order.

        Raises DecoderError where no process can be started to decode, and whatever the network raises. A loader whose
        stream was left before its end cannot be used again.
        """
        with self.flow(records) as batches:
            yield from batches

    @contextmanager
    def flow(self, records: Iterable[Record]) -> Iterator[Iterator[Done]]:
        """The same for who is in a hurry after Ctrl-C: only leaving waits for the batches that are in lanes."""
        with Crew() as crew:
            done: Channel[tuple[Batch, Done]] = crew.channel(2 * self._lanes)
            try:
                ready = self._loader.run(records, crew)
                going = set(range(self._lanes))
                for i in range(self._lanes):
                    crew.start(f"lane {i}", partial(self._work, i, going, ready, done))
                yield in_order(done, crew)
            finally:
                if not done.exhausted:
                    crew.end()
                    self._loader.kill()

    def _work(self, i: int, going: set[int], ready: Channel[Batch], done: Channel[tuple[Batch, Done]]) -> None:
        with enough_memory():
            lane = Lane(self.extractor, self.runner, self._loader.sight, self._loader.batch_size)
        for batch in ready:
            began = time.perf_counter()
            with enough_memory():
                rows, items, seconds = lane.compute(batch)
            batch.release()
            if self.trace:
                self.trace.span("batch", began, time.perf_counter(), number=batch.number, images=len(batch))
            done.put((batch, Done(items, rows, self._shared(seconds, items))))
        going.discard(i)
        if not going:  # of two that see it, both may say so
            done.finish()

    def _shared(self, seconds: dict[str, float], items: Sequence[Loaded]) -> dict[str, float]:
        """Share the seconds of a batch out over the threads and processes that work side by side."""
        loading = {"read": sum(item.read_s for item in items), "decode": sum(item.decode_s for item in items)}
        return {name: value / self._loader.workers for name, value in loading.items()} | {
            name: value / self._lanes for name, value in seconds.items()
        }


class Lane:
    """One lane, in its own thread: brings batches to the device, and runs the network there."""

    def __init__(self, extractor: Extractor, runner: Runner, sight: Sight, batch_size: int) -> None:
        self._extractor, self._sight = extractor, sight
        if extractor.device.type != "cuda":
            torch.set_num_threads(1)
        self._bringer = Bringer(extractor.device, sight, batch_size)
        with self._bringer.at_work():
            self._run = runner.lane()

    def compute(self, batch: Batch) -> tuple[dict[str, np.ndarray], list[Loaded], dict[str, float]]:
        """Compute the rows of a batch: by layer (n, *shape), what became of each record, and seconds by stage."""
        with torch.inference_mode(), self._bringer.at_work():
            clock = _clock(self._bringer.stream)
            marks = [clock.mark()]
            pixels, items = self._bringer.bring(batch)
            marks.append(clock.mark())
            # A list of paths may be all wrong, and the network would take as long for images that are not there.
            any_good = any(item.failure is None for item in items)
            rows = {tap: values.cpu().numpy() for tap, values in self._run(pixels).items()} if any_good else {}
            marks.append(clock.mark())
        by_layer = self._by_layer(rows, len(batch)) if any_good else self._no_rows(len(batch))
        items = _checked(by_layer, items, self._extractor.recipe.store)
        return by_layer, items, {"transfer": clock.seconds(*marks[:2]), "forward": clock.seconds(*marks[1:])}

    def _by_layer(self, rows: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
        """Take the views of each image apart: per tap (n V, *shape) -> per layer (n, *shape), in memory of its own."""
        views = self._sight.views
        taken = {tap: values.reshape(n, views, *values.shape[1:]) for tap, values in rows.items()}
        return {view_of(tap, view): values[:, view].copy() for view in range(views) for tap, values in taken.items()}

    def _no_rows(self, n: int) -> dict[str, np.ndarray]:
        """Return the rows of a batch of failures: per layer (n, *shape), all of them NaN."""
        shapes, store = self._extractor.shapes, self._extractor.recipe.store
        return {layer: np.full((n, *shape), np.nan, store) for layer, shape in shapes.items()}


def _checked(rows: dict[str, np.ndarray], items: Sequence[Loaded], store: str) -> list[Loaded]:
    """Make a Failure of each record with a number that the stored type cannot hold; what has none gets NaN rows."""
    flat = [values.reshape(len(items), -1) for values in rows.values()]
    finite = np.logical_and.reduce([np.isfinite(values).all(1) for values in flat])
    checked = [
        item if item.failure or fine else replace(item, failure=not_finite(store))
        for item, fine in zip(items, finite.tolist(), strict=True)
    ]
    bad = np.array([item.failure is not None for item in checked], bool)
    for values in rows.values():
        values[bad] = np.nan
    return checked


class _CpuClock:
    """CPU time of this thread: cores are shared with those that decode."""

    def mark(self) -> float:
        return time.thread_time()

    def seconds(self, began: float, ended: float) -> float:
        return ended - began


class _GpuClock:
    """Time on the device, from events in a stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def seconds(self, began: Any, ended: Any) -> float:
        ended.synchronize()
        return began.elapsed_time(ended) / 1e3


def _clock(stream: Any) -> _CpuClock | _GpuClock:
    return _GpuClock(stream) if stream else _CpuClock()
