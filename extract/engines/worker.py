"""The program of one process of several: it asks for records, computes them on its device, and reports on its output.

On its output go JSON objects, a line each: `next` asks for records, which come in a line on its input, and none when
there are no more; `rows` and `bad` count; `receipt` is a shard on disk; `note` and `error` are for the user. Where its
input ends, it is to stop: it writes what is done, and ends. So no process is left behind, whatever ends its parent.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from extract import errors
from extract.engines.local import Work, compute
from extract.errors import OffshelfError
from extract.forward import rebuild_extractor
from extract.recipe import Recipe
from extract.record import Record
from extract.shard import Receipt, Stages
from extract.spec import ExtractSpec
from extract.store.reader import WEIGHTS

GRACE_S = 3
"""How long a process that is to stop may take to compute the batches in its lanes and to write what is done."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to do: on which device, which recipe (JSON), into which folder of shards, how many images.

    The images are about that many, in shards of `most` rows. `share` is how many processes share the cores of this
    machine; `profile` is a file for its trace.
    """

    device: str
    recipe: str
    folder: str
    n_images: int
    most: int
    share: int
    workers: int
    batch_size: int | None
    compile: str
    profile: str | None = None


class Line:
    """The line to the process that started this one, over two pipes; any thread may speak."""

    def __init__(self, jobs: int, answers: int) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self._given: SimpleQueue[list[Any]] = SimpleQueue()
        self._cut = False
        threading.Thread(target=self._listen, args=[jobs], name="listen", daemon=True).start()

    def _listen(self, jobs: int) -> None:
        for line in _lines(jobs):
            self._given.put(json.loads(line))
        self._cut = True
        self._given.put([])
        time.sleep(GRACE_S)
        os._exit(1)

    def say(self, **message: Any) -> None:
        """Send a message; nobody hears it where the other process has died, which `records` finds out."""
        rest = json.dumps(message).encode() + b"\n"
        with self._lock, contextlib.suppress(BrokenPipeError):
            while rest:
                rest = rest[os.write(self._answers, rest) :]

    def records(self) -> Iterator[Record]:
        """Ask for records, some at a time, until there are no more; raises KeyboardInterrupt where it is to stop."""
        while True:
            self.say(next=True)
            some = self._given.get()
            for name, path, span in some:
                self._check()
                yield Record(name, path, span=tuple(span) if span else None)
            self._check()
            if not some:
                return

    def _check(self) -> None:
        if self._cut:
            raise KeyboardInterrupt

    # What follows makes a line something to report progress to.
    def start(self, what: str, total: int | None) -> None:
        """Nothing: the whole has begun elsewhere."""

    def advance(self, steps: int, bad: int = 0) -> None:
        """Count rows."""
        self.say(rows=steps, bad=bad)

    def note(self, text: str) -> None:
        """Pass on what the user should know."""
        self.say(note=text)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Yield whole lines.

    Not by a file object: a thread that waits inside of its buffer, locked, is fatal to Python at its end.
    """
    rest = b""
    while read := os.read(descriptor, 1 << 16):
        *lines, rest = (rest + read).split(b"\n")
        yield from lines


def main(jobs: int, answers: int) -> None:
    """Carry out the Order in the first argument, told and telling over these descriptors."""
    order = Order(**json.loads(sys.argv[1]))
    line = Line(jobs, answers)
    code = 0
    try:
        _compute(order, line)
    except KeyboardInterrupt:  # what was done is written
        code = 130
    except OffshelfError as error:
        line.say(error=error.as_dict())
        code = 1
    sys.stderr.flush()
    os._exit(code)  # Python takes seconds to tear torch down, and a driver may hang in it


def _compute(order: Order, line: Line) -> None:
    folder = Path(order.folder)
    extractor = rebuild_extractor(Recipe.from_json(order.recipe), folder.parent / WEIGHTS, device=order.device)
    profile = Path(order.profile) if order.profile else None
    spec = ExtractSpec("", workers=order.workers, batch_size=order.batch_size, compile=order.compile, profile=profile)
    work = Work(line.records(), order.n_images, order.most, order.share)
    for receipt in compute(work, extractor, folder, spec, line):
        line.say(receipt=asdict(receipt))


def receipt_from(said: dict[str, Any]) -> Receipt:
    """Read a receipt that came as JSON."""
    return Receipt(**{**said, "stages": Stages(said["stages"]["seconds"]), "span": tuple(said["span"])})


def error_from(said: dict[str, str]) -> OffshelfError:
    """Make here what was raised there, and came as JSON."""
    kind = getattr(errors, said["type"], OffshelfError)
    return kind(said["what"], where=said["where"], remedy=said["remedy"])
