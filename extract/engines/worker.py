"""The program of one process of several: it asks for records, computes them on its device, and reports on its output.

On its output go JSON objects, a line each: `next` asks for records, which come in a line on its input, and none when
there are no more; `rows` and `bad` count; `receipt` is a shard on disk; `note` and `error` are for the user.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from extract.engines.local import Work, compute
from extract.errors import OffshelfError
from extract.forward import rebuild_extractor
from extract.shard import Receipt, Stages
from extract.spec import ExtractSpec, Recipe, Record
from extract.store.reader import RECIPE, WEIGHTS


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to do: on which device, into which folder of shards, about how many images.

    `share` is how many processes share the cores of this machine.
    """

    device: str
    folder: str
    n_images: int
    most: int
    share: int
    workers: int
    batch_size: int | None
    compile: str


class Line:
    """The line to the process that started this one; any thread may speak."""

    def __init__(self, jobs: TextIO, answers: TextIO) -> None:
        self._jobs, self._answers = jobs, answers
        self._lock = threading.Lock()

    def say(self, **message: Any) -> None:
        """Send a message."""
        with self._lock:
            self._answers.write(json.dumps(message) + "\n")
            self._answers.flush()

    def records(self) -> Iterator[Record]:
        """Ask for records, some at a time, until there are no more."""
        while True:
            self.say(next=True)
            some = json.loads(self._jobs.readline() or "[]")
            if not some:
                return
            yield from (Record(name, path, span=tuple(span) if span else None) for name, path, span in some)

    # What follows makes a line something to report progress to.
    def start(self, what: str, total: int) -> None:
        """Nothing: the whole has begun elsewhere."""

    def advance(self, steps: int, bad: int = 0) -> None:
        """Count rows."""
        self.say(rows=steps, bad=bad)

    def note(self, text: str) -> None:
        """Pass on what the user should know."""
        self.say(note=text)


def main() -> None:
    """Carry out the Order in the first argument."""
    order = Order(**json.loads(sys.argv[1]))
    line = Line(sys.stdin, os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # what libraries print must not get between the messages
    try:
        _compute(order, line)
    except KeyboardInterrupt:
        pass  # what was done is written
    except OffshelfError as error:
        line.say(error=error.as_dict())
        sys.exit(1)


def _compute(order: Order, line: Line) -> None:
    folder = Path(order.folder)
    recipe = Recipe.from_json((folder.parent / RECIPE).read_text())
    extractor = rebuild_extractor(recipe, folder.parent / WEIGHTS, device=order.device)
    spec = ExtractSpec("", workers=order.workers, batch_size=order.batch_size, compile=order.compile)
    work = Work(line.records(), order.n_images, order.most, order.share)
    for receipt in compute(work, extractor, folder, spec, line):
        line.say(receipt=asdict(receipt))


def receipt_from(said: dict[str, Any]) -> Receipt:
    """Read a receipt that came as JSON."""
    return Receipt(**{**said, "stages": Stages(said["stages"]["seconds"]), "span": tuple(said["span"])})
