"""One shard: records -> rows -> one HDF5 file -> a receipt. It depends on its arguments only: any engine can run it."""

import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from extract.forward import Extractor, not_finite
from extract.loader import Loaded, Loader
from extract.spec import Failure, Record
from extract.store.shards import Rows, write_shard

SHARD_S = 60.0
"""Seconds after which the rows that are done become a shard: a killed run loses no more than a minute."""

STAGES = ("read", "decode", "transfer", "forward", "write")


@dataclass(slots=True)
class Stages:
    """Seconds of the main road spent in each stage; reading and decoding count where the network waited for them."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def waited(self, seconds: float, batch: Sequence[Loaded]) -> None:
        """Share a wait for the loader out between reading and decoding, as the loader's threads spent their time."""
        read, decode = sum(item.read_s for item in batch), sum(item.decode_s for item in batch)
        share = read / (read + decode) if read + decode else 0.0
        self.seconds["read"] += seconds * share
        self.seconds["decode"] += seconds * (1 - share)

    def add(self, other: "Stages") -> None:
        """Add up two shards."""
        for name, seconds in other.seconds.items():
            self.seconds[name] += seconds


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one shard: its file, how many rows it holds and how many of them are bad, and the seconds.

    The rows are those of the first records; the others are still to be done. `interrupted` work without a single row
    has no file, and no name.
    """

    name: str
    rows: int
    bad: int
    stages: Stages
    interrupted: bool = False


def extract_shard(
    records: Sequence[Record],
    extractor: Extractor,
    loader: Loader,
    folder: Path,
    *,
    batch_size: int,
    on_rows: Callable[[int], None],
) -> Receipt:
    """Compute the rows of `records`, write them as one shard into `folder`, and say what was done.

    `on_rows` is called with the number of rows after every batch. A record that cannot be used becomes a row with its
    reason; it never moves another row. After SHARD_S seconds, or at Ctrl-C, the rows that are done are written, and the
    other records are left.
    """
    rows, stages, done = _empty(len(records), extractor), Stages(), 0
    interrupted, began = False, time.perf_counter()
    try:
        with closing(_compute(rows, records, extractor, loader, stages, batch_size)) as computing:
            for n in computing:
                done += n
                on_rows(n)
                if time.perf_counter() - began > SHARD_S:
                    break
    except KeyboardInterrupt:
        interrupted = True
    kept = rows.first(done)
    if not done:
        return Receipt("", 0, 0, stages, interrupted)
    mark = time.perf_counter()
    try:
        name = _write(folder, kept, extractor)
    except KeyboardInterrupt:
        name, interrupted = _write(folder, kept, extractor), True
    stages.seconds["write"] += time.perf_counter() - mark
    return Receipt(name, done, kept.bad, stages, interrupted)


def _compute(
    rows: Rows, records: Sequence[Record], extractor: Extractor, loader: Loader, stages: Stages, batch_size: int
) -> Generator[int, None, None]:
    """Fill in the rows, batch by batch, and yield how many each was."""
    done, mark = 0, time.perf_counter()
    with closing(loader.batches(records, batch_size)) as batches:
        for batch in batches:
            stages.waited(time.perf_counter() - mark, batch)
            mark = time.perf_counter()
            good = _note(rows, done, batch)
            if len(good):
                pixels = extractor.send([item.outcome for item in batch if isinstance(item.outcome, Tensor)])
                stages.seconds["transfer"] += time.perf_counter() - mark
                mark = time.perf_counter()
                _fill(rows, good, extractor(pixels), extractor.recipe.store)
            stages.seconds["forward"] += time.perf_counter() - mark
            yield len(batch)
            done += len(batch)
            mark = time.perf_counter()


def _write(folder: Path, rows: Rows, extractor: Extractor) -> str:
    return write_shard(folder, rows, extractor.recipe.key, json.dumps(extractor.writer))


def _empty(n: int, extractor: Extractor) -> Rows:
    layers = {tap: np.full((n, width), np.nan, extractor.recipe.store) for tap, width in extractor.dims.items()}
    return Rows(layers, np.zeros((n, 32), np.uint8), [None] * n)


def _note(rows: Rows, start: int, batch: Sequence[Loaded]) -> np.ndarray:
    """Write down what each record of a batch is, by row number; return the rows (n,) that have pixels."""
    for i, item in enumerate(batch, start):
        rows.digests[i] = np.frombuffer(item.digest, np.uint8)
        rows.failures[i] = item.outcome if isinstance(item.outcome, Failure) else None
    return np.array([i for i, item in enumerate(batch, start) if isinstance(item.outcome, Tensor)], np.int64)


def _fill(rows: Rows, good: np.ndarray, features: dict[str, np.ndarray], store: str) -> None:
    """Write the features of a batch where they belong; what the stored type cannot hold is a bad row."""
    finite = np.logical_and.reduce([np.isfinite(values).all(1) for values in features.values()])
    for tap, values in features.items():
        rows.layers[tap][good[finite]] = values[finite]
    for i in good[~finite]:
        rows.failures[i] = not_finite(store)
