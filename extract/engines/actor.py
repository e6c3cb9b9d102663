"""What an actor of Ray is made of: a network on a device of some machine, and the stream that shards go through.

Only words go to it and come from it: an Order, the records of a shard, receipts, and errors of ours, as JSON would have
them. It writes its shards itself, into a folder that all machines see.
"""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch

from extract.engines.local import Work, proven_stream
from extract.engines.worker import Order
from extract.errors import EngineError, OffshelfError
from extract.forward import rebuild_extractor
from extract.recipe import Recipe
from extract.record import Record
from extract.shard import write_shards
from extract.spec import ExtractSpec, available_cores
from extract.store.reader import WEIGHTS

SEEN_S = 10.0
"""How long a file that another machine has just written may take to be seen."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an actor works: how many CPUs are its own, and which files it must see, as the one who asks for it does."""

    cpus: float
    files: tuple[str, ...]


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
        self._folder = Path(order.folder)
        recipe, weights = Recipe.from_json(order.recipe), self._folder.parent / WEIGHTS
        extractor = rebuild_extractor(recipe, weights, device=order.device)
        spec = ExtractSpec("", workers=order.workers, batch_size=order.batch_size, compile=order.compile)
        work = Work((), order.n_images, order.most, ceil(available_cores() / place.cpus))
        self._stream = self._ends.enter_context(proven_stream(extractor, self._folder, spec, work, notes.append))

    def compute(self, records: Sequence[Record]) -> dict[str, Any]:
        """Write the rows of the records as one shard: {"receipts": [...]} or {"error": ...}.

        After `stop` a receipt may be of fewer rows, or there is none.
        """
        receipts: list[dict[str, Any]] = []
        made = write_shards(self._stream, self._until_stopped(records), self._folder, most=len(records), whole=True)
        try:
            receipts.extend(asdict(receipt) for receipt in made)
        except KeyboardInterrupt:  # what was done is written
            pass
        except OffshelfError as error:
            return {"error": error.as_dict()}
        return {"receipts": receipts}

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
