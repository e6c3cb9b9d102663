"""The engine of one machine: a plain loop in this process."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from extract.forward import Extractor
from extract.shard import Receipt, extract_shard
from extract.spec import ExtractSpec, Record


def run(
    shards: Iterable[Sequence[Record]],
    extractor: Extractor,
    folder: Path,
    spec: ExtractSpec,
    on_rows: Callable[[int], None],
) -> Iterator[Receipt]:
    """Compute one shard after the other and yield its receipt once it is on disk."""
    batch_size = spec.batch_size or extractor.batch_size
    for records in shards:
        yield extract_shard(records, extractor, folder, batch_size=batch_size, workers=spec.workers, on_rows=on_rows)
