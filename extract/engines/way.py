"""The way of shards from actors into the folder of the cache: all machines see it, or a relay leads there."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from extract import golden
from extract.forward import Extractor
from extract.record import Record
from extract.spec import ExtractSpec
from extract.store import files
from extract.store.arrivals import Arrivals, AtOnce
from extract.store.relay import Relay


@contextmanager
def way(extractor: Extractor, folder: Path, spec: ExtractSpec) -> Iterator[tuple[list[str], Arrivals | AtOnce]]:
    """Open the way of shards into the folder: which files actors must see for it, and what comes by it."""
    if spec.engine.relay is None:
        with _probe(folder) as probe:
            yield [probe], AtOnce()
        return
    relay = Relay(spec.engine.relay, folder.parent)
    golden.prove_plain(extractor, folder.parent)
    relay.lend(folder.parent)
    with Arrivals(relay, folder.parent, extractor.recipe.key) as arrivals:
        yield [], arrivals


@contextmanager
def _probe(folder: Path) -> Iterator[str]:
    """Write a file beside the shards that every machine must see, as long as actors start."""
    path = folder.absolute().parent / f"{files.TEMPORARY}seen-{secrets.token_hex(4)}"
    files.publish(path, b"seen\n")
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def in_reach(shards: Sequence[Sequence[Record]]) -> Iterator[str]:
    """Yield the first image, if it can be seen here."""
    if (path := Path(shards[0][0].path)).is_file():
        yield str(path.absolute())
