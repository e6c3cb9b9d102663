"""The engine of one device: a stream through this process."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import torch

from extract import golden
from extract.allocator import keep_memory
from extract.devices import device_names
from extract.errors import OptionError
from extract.forward import Extractor
from extract.lanes import Stream, lanes_on
from extract.loader import Loader, Sight
from extract.progress import Progress
from extract.record import Record
from extract.runners import Runner, prepare
from extract.runners.choice import choose
from extract.shard import Receipt, write_shards
from extract.spec import ExtractSpec
from extract.trace import Trace

PROBE_BATCH, PROBE_ROUNDS, PROBE_S = {"cpu": 8, "cuda": None}, 8, 4.0
"""How much is computed to tell how long the rest will take: images a batch (None: as always), batches of each lane, and
seconds at most."""


@dataclass(frozen=True, slots=True)
class Work:
    """What to compute: about `n_images` records, into shards of `most` rows; `share` processes share the machine."""

    records: Iterable[Record]
    n_images: int
    most: int = 4096
    share: int = 1


def run(
    shards: Sequence[Sequence[Record]], extractor: Extractor, folder: Path, spec: ExtractSpec, progress: Progress
) -> Generator[Receipt, None, None]:
    """Compute the rows of all records in this process, and yield a receipt for each shard on disk."""
    if shards:
        work = Work(chain.from_iterable(shards), sum(map(len, shards)), max(map(len, shards)))
        yield from compute(work, extractor, folder, spec, progress)


def compute(
    work: Work, extractor: Extractor, folder: Path, spec: ExtractSpec, progress: Progress
) -> Generator[Receipt, None, None]:
    """Compute rows and yield a receipt for each shard on disk; the golden images go before them."""
    with proven_stream(extractor, folder, spec, work, progress.note) as stream:
        yield from write_shards(stream, work.records, folder, most=work.most, on_rows=progress.advance)


@contextmanager
def proven_stream(
    extractor: Extractor, folder: Path, spec: ExtractSpec, work: Work, note: Callable[[str], None]
) -> Iterator[Stream]:
    """Open a stream for `work` that has shown on the golden images that its rows may go into `folder`."""
    golden.prove_frozen(extractor)
    with _traced(spec.profile) as trace, open_stream(extractor, spec, work, note=note, trace=trace) as stream:
        golden.prove(extractor, stream, folder.parent)
        yield stream


@contextmanager
def _traced(path: Path | None) -> Iterator[Trace | None]:
    """Collect a trace and write it in the end; an empty one first, to learn in time that it cannot be written."""
    if path is None:
        yield None
        return
    trace = Trace()
    _write(trace, path)
    try:
        yield trace
    finally:
        _write(trace, path)


def _write(trace: Trace, path: Path) -> None:
    try:
        trace.write(path)
    except OSError as error:
        said = f"the trace cannot be written ({error.strerror})"
        raise OptionError(said, where=str(path), remedy="Take another file for --profile") from error


@contextmanager
def open_stream(
    extractor: Extractor,
    spec: ExtractSpec,
    work: Work,
    *,
    note: Callable[[str], None] = lambda _: None,
    trace: Trace | None = None,
) -> Iterator[Stream]:
    """Open what the images of `work` will flow through, everything started. One thread may use it at a time."""
    keep_memory()
    threads = torch.get_num_threads()
    lanes = lanes_on(extractor.device, work.share)
    views = extractor.recipe.views
    wanted = spec.batch_size or max(1, extractor.batch_size // views)
    batch_size = min(wanted, work.most, max(1, -(-work.n_images // lanes)))
    loader = Loader(
        Sight.of(extractor.recipe),
        workers=max(1, min(spec.workers, work.n_images)),
        batch_size=batch_size,
        buffers=lanes + 2,
        on_gpu=extractor.device.type == "cuda",
        trace=trace,
    )
    with loader:
        loader.start()
        runner, why = _runner(extractor, spec, work.n_images * views, batch_size * views, lanes)
        if why:
            note(why)
        try:
            yield Stream(extractor, runner, loader, lanes=lanes, trace=trace)
        finally:
            torch.set_num_threads(threads)


def _runner(extractor: Extractor, spec: ExtractSpec, n_images: int, batch_size: int, lanes: int) -> tuple[Runner, str]:
    """Open what runs the network, and say why it is that."""
    if spec.compile == "auto":
        return choose(extractor, n_images=n_images, batch_size=batch_size, lanes=lanes)
    return prepare(extractor, batch_size=batch_size, compiler=spec.compile), ""


def probe(shards: Sequence[Sequence[Record]], extractor: Extractor, spec: ExtractSpec) -> float:
    """Compute a few rows, keep none, and return images per second, start-up and compiling apart.

    Of several devices one computes, with its share of the cores, and stands for all.
    """
    n_devices = len(device_names(spec.device))
    lanes = lanes_on(extractor.device, n_devices)
    batch_size = spec.batch_size or PROBE_BATCH[extractor.device.type] or extractor.batch_size
    records = list(islice(chain.from_iterable(shards), PROBE_ROUNDS * lanes * batch_size))
    compiler = "none" if spec.compile == "auto" else spec.compile
    workers = max(1, spec.workers // n_devices)
    quick = replace(spec, compile=compiler, batch_size=batch_size, workers=workers)
    with open_stream(extractor, quick, Work(records, len(records), share=n_devices)) as stream:
        return n_devices * _speed(stream, records, lanes)


def _speed(stream: Stream, records: Sequence[Record], lanes: int) -> float:
    """Measure images per second, from when each lane has done a batch, as the first ones begin at a standstill.

    Of one round more they would all come at nearly the same time; then the whole counts.
    """
    marks = [(0, time.perf_counter())]
    with closing(stream.run(records)) as batches:
        for batch in batches:
            marks.append((marks[-1][0] + len(batch.items), time.perf_counter()))
            if marks[-1][1] - marks[0][1] > PROBE_S:
                break
    (before, began), (after, ended) = marks[lanes if len(marks) > 3 * lanes else 0], marks[-1]
    return (after - before) / max(ended - began, 1e-9)
