"""The engine of several devices on one machine: a process for each, which asks for shards as it goes."""

import contextlib
import json
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Self, cast

from extract.channel import Channel, Crew
from extract.devices import device_names
from extract.engines.worker import Order, error_from, receipt_from
from extract.errors import EngineError
from extract.forward import Extractor
from extract.progress import Progress
from extract.recipe import Recipe
from extract.record import Record
from extract.shard import Receipt
from extract.spec import ExtractSpec

# The pipes are taken away before anything is imported: what libraries print must not get between the messages.
PROGRAM = """\
import json, os, sys
sys.path[:] = json.loads(sys.argv.pop(1))
pipes = os.dup(0), os.dup(1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
from extract.engines.worker import main
main(*pipes)
"""

Message = dict[str, Any]


def run(
    shards: Sequence[Sequence[Record]], extractor: Extractor, folder: Path, spec: ExtractSpec, progress: Progress
) -> Generator[Receipt, None, None]:
    """Compute the rows of all records with one process for each device of the spec; yield a receipt for each shard.

    The processes read the weights beside `folder`. Raises EngineError where one of them dies; the shards that any of
    them has written are kept.
    """
    if not shards:
        return
    todo = Todo(deque(shards))
    with contextlib.ExitStack() as ends, Crew() as crew:
        messages: Channel[Message] = crew.channel(64)
        orders = _orders(shards, extractor.recipe, folder, spec)
        children = [ends.enter_context(Child(order)) for order in orders]
        try:
            going = set(children)
            for child in children:
                crew.start(child.device, partial(_listen, child, todo, messages, going))
            yield from _until_stopped(messages, children, todo, progress)
            crew.check()
        finally:
            for child in children:
                child.kill()
    if todo.stopped:
        raise KeyboardInterrupt


@dataclass(slots=True)
class Todo:
    """The shards that no process has yet; `stopped` says that there are no more for a reason."""

    shards: deque[Sequence[Record]]
    stopped: bool = False

    def take(self) -> Sequence[Record]:
        """Take a shard, for any thread; nothing where there are none."""
        with contextlib.suppress(IndexError):
            return self.shards.popleft()
        return ()

    def stop(self) -> None:
        """Give out no more."""
        self.stopped = True
        self.shards.clear()


class Child:
    """A process that computes on one device. As a context manager it leaves nothing behind."""

    def __init__(self, order: Order) -> None:
        self.device = order.device
        self._process = _started(order)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        with contextlib.suppress(OSError), self._process:  # what it did not take any more cannot be flushed
            pass

    def messages(self) -> Iterator[Message]:
        """Yield what it says, until it ends. Half a line is what it was killed at."""
        for line in cast(IO[str], self._process.stdout):
            if line.endswith("\n"):
                yield json.loads(line)

    def give(self, records: Sequence[Record]) -> None:
        """Give it records to compute, or none where there are no more."""
        jobs = cast(IO[str], self._process.stdin)
        with contextlib.suppress(OSError, ValueError):  # it has died or was told to stop: the end of its output tells
            jobs.write(json.dumps([(r.id, r.path, r.span) for r in records]) + "\n")
            jobs.flush()

    def stop(self) -> None:
        """Have it write what is done, and end."""
        with contextlib.suppress(OSError):
            cast(IO[str], self._process.stdin).close()

    def ended(self) -> str:
        """Wait for its end, and say what was wrong with it; "" for nothing."""
        code = self._process.wait()
        names = {number.value: number.name for number in signal.Signals}
        return names.get(-code, f"exit code {code}") if code else ""

    def kill(self) -> None:
        """End it now, if it runs."""
        self._process.kill()


def _orders(shards: Sequence[Sequence[Record]], recipe: Recipe, folder: Path, spec: ExtractSpec) -> list[Order]:
    names = device_names(spec.device)
    first = Order(
        device="",
        recipe=recipe.to_json(indent=None),
        folder=str(folder),
        n_images=-(-sum(map(len, shards)) // len(names)),
        most=max(map(len, shards)),
        share=len(names),
        workers=max(1, spec.workers // len(names)),
        batch_size=spec.batch_size,
        compile=spec.compile,
    )
    return [replace(first, device=name, profile=_profile(spec.profile, i)) for i, name in enumerate(names)]


def _profile(path: Path | None, i: int) -> str | None:
    """Name the trace of one process: `trace.json` -> `trace-0.json`."""
    return str(path.with_stem(f"{path.stem}-{i}")) if path else None


def _started(order: Order) -> "subprocess.Popen[str]":
    """Start a process of its own session, so that Ctrl-C reaches it through us, once."""
    command = [sys.executable, "-P", "-c", PROGRAM, json.dumps(sys.path), json.dumps(asdict(order))]
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)  # noqa: S603 ours
    except OSError as error:
        said = f"no process can be started for {order.device} ({error.strerror})"
        raise EngineError(said, where=sys.executable, remedy="Check that it runs, or name fewer devices") from error


def _listen(child: Child, todo: Todo, messages: Channel[Message], going: set[Child]) -> None:
    """Give a process shards as it asks for them, and pass on what it says, until it ends."""
    for message in child.messages():
        if "next" in message:
            child.give(todo.take())
        elif "error" in message:
            raise error_from(message["error"])
        else:
            messages.put(message)
    if (wrong := child.ended()) and not todo.stopped:
        remedy = "Run the same command again: it goes on from the rows that are written"
        raise EngineError(
            f"the process that computes there ended too early ({wrong})", where=child.device, remedy=remedy
        )
    going.discard(child)
    if not going:  # of two that see it, both may say so
        messages.finish()


def _until_stopped(
    messages: Channel[Message], children: Sequence[Child], todo: Todo, progress: Progress
) -> Iterator[Receipt]:
    """Yield receipts until all have ended; after Ctrl-C, those of what is done."""
    notes: set[str] = set()
    try:
        yield from _receipts(messages, progress, notes)
    except KeyboardInterrupt:
        todo.stop()
        for child in children:
            child.stop()
        yield from _receipts(messages, progress, notes)


def _receipts(messages: Channel[Message], progress: Progress, notes: set[str]) -> Iterator[Receipt]:
    for message in messages:
        if "receipt" in message:
            yield receipt_from(message["receipt"])
        elif "rows" in message:
            progress.advance(message["rows"], message["bad"])
        elif message["note"] not in notes:  # most have the same to say
            notes.add(message["note"])
            progress.note(message["note"])
