"""Answers under way: FILE.part until they are all there, so that a run that was killed goes on where it stopped.

Beside it lies FILE.part.json, which says what the answers depend on. Rows are only ever added, each with its end: what
a killed process left of the last one is cut off.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from classify.answers import fields_of
from classify.folders import name_for_good
from classify.outputs import LINES, told
from extract.errors import OptionError, StoreError
from extract.record import Record
from extract.store.lock import held

PART, SAID, LOCK = ".part", ".part.json", ".part.lock"
ANEW = "Leave out --resume to begin anew"
GO_ON = "Make room or see to the folder, and run it again with --resume: whole rows are kept"

Rows = Iterator[tuple[str, int]]
"""Ids of the rows that are whole, each with where it ends in the file, in bytes."""


@dataclass(frozen=True)
class Part:
    """The answers of one FILE that are under way; `said` is what they depend on: bundle, form and options."""

    path: Path
    said: dict[str, Any]
    classes: tuple[str, ...] | None = None

    @property
    def part(self) -> Path:
        """Where the rows are meanwhile."""
        return self.path.with_name(self.path.name + PART)

    @property
    def beside(self) -> Path:
        """Where it is said what they depend on."""
        return self.path.with_name(self.path.name + SAID)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from the same FILE, whose folder is made; raises OptionError where another process is at it."""
        with told(str(self.path), "Take another -o FILE"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                lock = self.path.with_name(f".{self.path.name}{LOCK}")
                stack.enter_context(held(lock, wait=False, on_wait=lambda _: None))
            except StoreError as error:
                raise OptionError(error.what, where=str(self.part), remedy="Take another -o FILE") from error
            yield

    def begin(self) -> int:
        """Begin anew, what is there of another time goes: -> 0, where the rows that are there end."""
        with self.told():
            self.part.unlink(missing_ok=True)
            self.beside.write_text(json.dumps(self.said), encoding="utf-8")
        return 0

    def check(self) -> bool:
        """Tell whether there is anything to go on with; raises OptionError where that is of another run or form."""
        if not self.part.is_file():
            return False
        try:
            there = json.loads(self.beside.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OptionError("nothing says what run it is of", where=str(self.part), remedy=ANEW) from error
        if other := [name for name, value in self.said.items() if not _same(there, name, value)]:
            raise OptionError(f"begun with another {', '.join(other)}", where=str(self.part), remedy=ANEW)
        return True

    def left(self, records: Iterable[Record]) -> tuple[Iterator[Record], int, int]:
        """Pass over the records that have their row: -> the others, how many there are rows of, and where these end.

        Raises OptionError where the rows are not those of the first records, in their order.
        """
        left, n, end = iter(records), 0, 0
        with self.part.open("rb") as file:
            for name, until in ROWS[self.said["format"]](file, self.classes):
                n, end, record = n + 1, until, next(left, None)
                if record is None or record.id != name:
                    there = repr(record.id) if record else "none"
                    said = f"row {n} is of {name!r:.200}, and of the images that one is {there:.200}"
                    raise OptionError(said, where=str(self.part), remedy=ANEW)
        return left, n, end

    @contextmanager
    def file(self, end: int) -> Iterator[TextIO]:
        """Open what is under way, to add rows behind its first `end` bytes; once all are there it gets its name."""
        with self.told():
            file = self.part.open("a", encoding="utf-8", errors="surrogateescape", newline="")
        try:
            with self.told():
                file.truncate(end)
            yield file
        finally:
            with self.told():
                file.close()
        with self.told():
            name_for_good(self.part, self.path)
            self.beside.unlink(missing_ok=True)

    def told(self) -> AbstractContextManager[None]:
        """Say of what the system refuses where that was, and how to go on."""
        return told(str(self.part), GO_ON)


def _same(there: Any, name: str, value: Any) -> bool:
    return isinstance(there, dict) and name in there and there[name] == value


def _csv_rows(file: BinaryIO, classes: tuple[str, ...] | None) -> Rows:
    """Read the first cell of each row of a table, behind our header."""
    rows = _whole_rows(file)
    header, _ = next(rows, ("", 0))
    if next(csv.reader([header]), []) == fields_of(classes):
        yield from ((_first_cell(text), end) for text, end in rows)


def _whole_rows(file: BinaryIO) -> Iterator[tuple[str, int]]:
    """Cut a table into rows, each with where it ends: at the end of a line, and in no quotes."""
    lines: list[bytes] = []
    end = n_quotes = 0
    for line in file:
        lines.append(line)
        end, n_quotes = end + len(line), n_quotes + line.count(b'"')
        if line.endswith(b"\r\n") and n_quotes % 2 == 0:
            yield b"".join(lines).decode("utf-8", "surrogateescape"), end
            lines.clear()


def _first_cell(text: str) -> str:
    """Read the first cell, however long the others are (csv.reader refuses cells of 128 KiB)."""
    if not text.startswith('"'):
        return text.partition(",")[0]
    cell, _, _ = text[1:].replace('""', "\0").partition('"')
    return cell.replace("\0", '"')


def _json_rows(file: BinaryIO, classes: tuple[str, ...] | None) -> Rows:
    """Read the ids of JSON lines, up to the first line that is none."""
    del classes  # every line says them by itself
    end = 0
    for line in file:
        end += len(line)
        try:
            name = json.loads(line)["id"] if line.endswith(b"\n") else None
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if not isinstance(name, str):
            return
        yield name, end


ROWS: dict[str, Callable[[BinaryIO, tuple[str, ...] | None], Rows]] = {"csv": _csv_rows, LINES: _json_rows}
"""By form, how the rows that are there are read."""
