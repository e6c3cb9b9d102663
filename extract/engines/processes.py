"""The engine of several devices on one machine: a process for each, which asks for shards as it goes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from extract import errors
from extract.channel import Channel, Crew
from extract.devices import device_names
from extract.engines.worker import Order, receipt_from
from extract.errors import EngineError, OffshelfError
from extract.forward import Extractor
from extract.progress import Progress
from extract.shard import Receipt
from extract.spec import ExtractSpec, Record

PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from extract.engines.worker import main
main()
"""

Message = dict[str, Any]


def run(
    shards: Sequence[Sequence[Record]], extractor: Extractor, folder: Path, spec: ExtractSpec, progress: Progress
) -> Generator[Receipt, None, None]:
    """Compute the rows of all records with one process for each device of the spec; yield a receipt for each shard.

    The processes read the recipe and the weights beside `folder`. Raises EngineError where one of them dies; what any
    of them has written is kept.
    """
    del extractor  # each process has its own
    if not shards:
        return
    todo, lock, said = deque(shards), threading.Lock(), set()
    stopped = False
    with Crew() as crew:
        messages = crew.channel(64)
        children = [_start(order) for order in _orders(shards, folder, spec)]
        try:
            going = set(range(len(children)))
            for i, child in enumerate(children):
                crew.start(f"device {i}", partial(_listen, child, todo, lock, messages, going, i))
            yield from _receipts(messages, progress, said)
            crew.check()
        except KeyboardInterrupt:
            stopped = True
            todo.clear()
            for child in children:
                child.send_signal(signal.SIGINT)
            yield from _receipts(messages, progress, said)
        finally:
            _leave(children)
    if stopped:
        raise KeyboardInterrupt


def _orders(shards: Sequence[Sequence[Record]], folder: Path, spec: ExtractSpec) -> list[Order]:
    names = device_names(spec.device)
    n_images, most = sum(map(len, shards)), max(map(len, shards))
    first = Order(
        device="",
        folder=str(folder),
        n_images=-(-n_images // len(names)),
        most=most,
        share=len(names),
        workers=max(1, spec.workers // len(names)),
        batch_size=spec.batch_size,
        compile=spec.compile,
    )
    return [replace(first, device=name) for name in names]


def _start(order: Order) -> "subprocess.Popen[str]":
    """Start a process of its own session, so that Ctrl-C reaches it through us, once."""
    command = [sys.executable, "-P", "-c", PROGRAM, json.dumps(sys.path), json.dumps(asdict(order))]
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)  # noqa: S603 ours
    except OSError as error:
        said = f"no process can be started for {order.device} ({error.strerror})"
        raise EngineError(said, where=sys.executable, remedy="Check that it runs, or name fewer devices") from error


def _listen(
    child: "subprocess.Popen[str]",
    todo: "deque[Sequence[Record]]",
    lock: threading.Lock,
    messages: Channel[Message],
    going: set[int],
    i: int,
) -> None:
    """Give a process shards as it asks for them, and pass on what it says, until it ends."""
    assert child.stdin  # noqa: S101 it has a pipe
    assert child.stdout  # noqa: S101
    for line in child.stdout:
        message = json.loads(line)
        if "next" in message:
            with lock:
                records = todo.popleft() if todo else ()
            with contextlib.suppress(BrokenPipeError):  # it has died, which the end of its output tells
                child.stdin.write(json.dumps([(r.id, r.path, r.span) for r in records]) + "\n")
                child.stdin.flush()
        elif "error" in message:
            raise _error(message["error"])
        else:
            messages.put(message)
    if code := child.wait():
        remedy = "Run the same command again: the rows that are done are kept"
        raise EngineError(f"a process that computes ended too early (exit code {code})", remedy=remedy)
    going.discard(i)
    if not going:  # of two that see it, both may say so
        messages.finish()


def _error(said: dict[str, str]) -> OffshelfError:
    """Raise here what a process raised there."""
    kind = getattr(errors, said["type"], OffshelfError)
    return kind(said["what"], where=said["where"], remedy=said["remedy"])


def _receipts(messages: Channel[Message], progress: Progress, said: set[str]) -> Iterator[Receipt]:
    for message in messages:
        if "receipt" in message:
            yield receipt_from(message["receipt"])
        elif "rows" in message:
            progress.advance(message["rows"], message["bad"])
        elif message["note"] not in said:  # all processes say the same
            said.add(message["note"])
            progress.note(message["note"])


def _leave(children: "Sequence[subprocess.Popen[str]]") -> None:
    """End processes that still run, and close the pipes to them."""
    for child in children:
        with contextlib.suppress(OSError), child:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
