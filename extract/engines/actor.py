"""What an actor of Ray is made of: a network on a device of some machine, and the stream that shards go through.

Only words go to it and come from it: an Order, the records of a shard, receipts, and errors of ours, as JSON would have
them. It writes its shards itself, into a folder that all machines see, or puts them on a relay.
"""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from extract.engines.local import Work, proven_stream
from extract.engines.worker import Order
from extract.errors import EngineError, OffshelfError
from extract.forward import rebuild_extractor
from extract.recipe import Recipe
from extract.record import Record
from extract.shard import Receipt, write_shards
from extract.spec import ExtractSpec, available_cores
from extract.store.reader import SHARDS, WEIGHTS
from extract.store.relay import Relay

SEEN_S = 10.0
"""How long a file that another machine has just written may take to be seen."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an actor works: how many CPUs are its own, and which files it must see, as the one who asks for it does.

    `relay` is the URL by which its shards go where it does not see the cache.
    """

    cpus: float
    files: tuple[str, ...]
    relay: str | None = field(default=None, repr=False)


class Actor:
    """Computes one shard after another. `start` comes first; `stop` may be called while a shard is computed."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._ends = ExitStack()

    def start(self, order: Order, place: Place) -> dict[str, Any]:
        """Load the network and prove it on the golden images: {"notes": what the user should know} or {"error": ...}.

        Errors of ours come as words, as they end the whole run; any other is raised.
        """
        notes: list[str] = []
        try:
            _check_sees(place.files)
            self._open(order, place, notes)
        except OffshelfError as error:
            return {"error": error.as_dict()}
        return {"notes": notes}

    def _open(self, order: Order, place: Place, notes: list[str]) -> None:
        torch.set_num_threads(max(1, int(place.cpus)))
        self._folder, recipe = Path(order.folder), Recipe.from_json(order.recipe)
        self._relay = Relay(place.relay, self._folder.parent) if place.relay else None
        spec = ExtractSpec("", workers=order.workers, batch_size=order.batch_size, compile=order.compile)
        work = Work((), order.n_images, order.most, ceil(available_cores() / place.cpus))
        with self._shards() as folder:
            if self._relay:
                self._relay.borrow(folder.parent, recipe)
            extractor = rebuild_extractor(recipe, folder.parent / WEIGHTS, device=order.device)
            self._stream = self._ends.enter_context(proven_stream(extractor, folder, spec, work, notes.append))

    @contextmanager
    def _shards(self) -> Iterator[Path]:
        """Give the folder that shards are written into: that of the cache, or one of this machine for a while."""
        if self._relay is None:
            yield self._folder
            return
        with TemporaryDirectory(prefix="offshelf-", ignore_cleanup_errors=True) as scratch:
            yield Path(scratch) / SHARDS

    def compute(self, records: Sequence[Record]) -> dict[str, Any]:
        """Write the rows of the records as one shard: {"receipts": [...]} or {"error": ...}.

        After `stop` a receipt may be of fewer rows, or there is none.
        """
        receipts: list[dict[str, Any]] = []
        try:
            with self._shards() as folder:
                made = write_shards(self._stream, self._until_stopped(records), folder, most=len(records), whole=True)
                receipts.extend(asdict(self._sent(receipt, folder)) for receipt in made)
        except KeyboardInterrupt:  # what was done is written
            pass
        except OffshelfError as error:
            return {"error": error.as_dict()}
        return {"receipts": receipts}

    def _sent(self, receipt: Receipt, folder: Path) -> Receipt:
        """Put a shard on the relay, where there is one; that is part of its writing."""
        if self._relay is None:
            return receipt
        began = time.perf_counter()
        self._relay.put(f"{SHARDS}/{receipt.name}", folder / receipt.name)
        receipt.stages.add({"write": time.perf_counter() - began})
        return replace(receipt, span=(receipt.span[0], time.time()))

    def _until_stopped(self, records: Sequence[Record]) -> Iterator[Record]:
        for record in records:
            if self._stopped.is_set():
                raise KeyboardInterrupt
            yield record

    def stop(self) -> None:
        """Have the shard that is being computed end with the rows that are done."""
        self._stopped.set()


def _check_sees(files: Sequence[str]) -> None:
    """Raise EngineError unless this machine sees the files that the one sees which wants them read."""
    deadline = time.monotonic() + SEEN_S
    for path in files:
        while not Path(path).is_file():
            if time.monotonic() > deadline:
                said = f"the machine {socket.gethostname()} does not see this file"
                remedy = "Put the images and the --cache on a file system that all machines mount at the same path"
                raise EngineError(said, where=path, remedy=remedy)
            time.sleep(0.1)
