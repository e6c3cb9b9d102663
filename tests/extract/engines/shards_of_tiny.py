"""A small job for an engine: shards of generated images, the weights in their place, and what the rows are to be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract import loader
from extract.engines import local
from extract.engines.actor import Actor, Place
from extract.engines.worker import Order
from extract.forward import Extractor, build_extractor
from extract.progress import Silent
from extract.record import Record
from extract.spec import EngineSpec, ExtractSpec
from extract.store.reader import WEIGHTS
from extract.store.shards import read_shard, shards_in
from tests.faults.storage import InProcess
from tests.tiny import put, tiny_spec

ROWS = 6


class Quick(Actor):
    """Decodes by itself: where that is not at stake, processes for it cost a start."""

    def start(self, order: Order, place: Place) -> dict[str, Any]:
        loader.Decoder = InProcess  # type: ignore[assignment]
        return super().start(order, place)


@dataclass(frozen=True)
class Tiny:
    """Shards to compute, and where."""

    shards: Sequence[Sequence[Record]]
    extractor: Extractor
    folder: Path
    spec: ExtractSpec

    @property
    def weights(self) -> Path:
        return self.folder.parent / WEIGHTS

    def rows_in(self, path: Path) -> int:
        return len(read_shard(path, self.extractor.recipe.key, thorough=True).status)

    def made(self) -> set[str]:
        """What lies in the folder."""
        return {path.name for path in self.folder.iterdir()}

    def made_locally(self) -> set[str]:
        """The files that the local engine makes of the shards."""
        folder = self.folder.parent.with_name("locally") / "shards"
        list(local.run(self.shards, self.extractor, folder, self.spec, Silent()))
        return {path.name for path in shards_in(folder)}


def tiny_job(root: Path, n_shards: int = 4, **engine: Any) -> Tiny:
    """A job for Ray of so many shards, in batches of two; its third image is broken."""
    records = [Record(f"{i}.png", str(put(root / f"{i}.png", i)), label="cat") for i in range(n_shards * ROWS)]
    Path(records[2].path).write_bytes(b"words")
    known = {"actors": 2, "retries": 2, **engine}
    options = {"batch_size": 2, "compile": "none", "engine": EngineSpec("ray", **known)}
    spec = tiny_spec("", root / "cache", taps=("penultimate",), **options)
    extractor, folder = build_extractor(spec), root / "cache" / "shards"
    folder.mkdir(parents=True)
    (folder.parent / WEIGHTS).write_bytes(extractor.weights())
    shards = [records[start : start + ROWS] for start in range(0, len(records), ROWS)]
    return Tiny(shards, extractor, folder, spec)
