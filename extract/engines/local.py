"""The engine of one machine: a plain loop in this process."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from extract import golden
from extract.forward import Extractor
from extract.loader import Loader
from extract.shard import Receipt, extract_shard
from extract.spec import ExtractSpec, Record


def run(
    shards: Sequence[Sequence[Record]],
    extractor: Extractor,
    folder: Path,
    spec: ExtractSpec,
    on_rows: Callable[[int], None],
) -> Iterator[Receipt]:
    """Compute one shard after the other and yield its receipt once it is on disk; the golden images go before them."""
    batch_size = spec.batch_size or extractor.batch_size
    with Loader(extractor.recipe.preprocessing, workers=spec.workers) as loader:
        if shards:
            golden.prove(extractor, loader, folder.parent)
        todo = deque(shards)
        while todo:
            records = todo.popleft()
            receipt = extract_shard(records, extractor, loader, folder, batch_size=batch_size, on_rows=on_rows)
            yield receipt
            if receipt.interrupted:
                return
            if rest := records[receipt.rows :]:
                todo.appendleft(rest)
