"""Several processes that train one network: they are given an order, watched, and asked for their answer."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from classify.finetune.log import Log
from classify.finetune.order import PROGRESS, WORDS, Answer, Desk, Order
from extract.errors import EngineError

POLL_S = 0.1


@dataclass(frozen=True)
class Group:
    """So many processes, and how they are started: `launch` waits for their end, and says what was wrong, "" if none.

    A process that dies is started anew with all others, and they go on from the last checkpoint. `kind` is what they
    compute on, cpu or cuda, which need not be what this process does; `notes` are for people.
    """

    size: int
    launch: Callable[[Desk], str]
    kind: str = "cpu"
    notes: tuple[str, ...] = ()

    def settle(self, desk: Desk, order: Order, log: Log) -> Answer:
        """Have an order carried out. Raises the error that it ended by; EngineError where there is no answer."""
        desk.put(order)
        with following(desk.folder / PROGRESS, log):
            wrong = self.launch(desk)
        answer = desk.read()
        if answer is None:
            said = f"the {self.size} processes that train together ended without an answer ({wrong})"
            remedy = "Run the same command again: it goes on from the last checkpoint"
            raise EngineError(said, where=order.job.name, remedy=remedy)
        return answer


@contextmanager
def following(path: Path, log: Log) -> Iterator[None]:
    """Tell a log what is written into a file, as it comes, while the block runs."""
    over = threading.Event()
    thread = threading.Thread(target=_follow, args=(path, log, over), name="follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _follow(path: Path, log: Log, over: threading.Event) -> None:
    at, last = 0, False
    while not last:
        last = over.wait(POLL_S)
        said = _read_from(path, at)
        whole = said[: said.rfind(b"\n") + 1]
        at += len(whole)
        for line in whole.splitlines():
            _tell(log, line)


def _read_from(path: Path, at: int) -> bytes:
    """Read a file from a place on; nothing where it is not there yet."""
    try:
        with path.open("rb") as file:
            file.seek(at)
            return file.read()
    except FileNotFoundError:
        return b""


def _tell(log: Log, line: bytes) -> None:
    """Say one line; what is none was cut off when its process was killed."""
    try:
        word, *said = json.loads(line)
    except ValueError:
        return
    if word in WORDS:
        getattr(log, word)(*said)
