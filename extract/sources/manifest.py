"""Images listed in a table: `path,label[,split,group]` as CSV or Parquet. Read strictly: a guess mislabels rows."""

import csv
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from extract.errors import SourceError, first_line
from extract.record import SPLITS, Record
from extract.sources.source import Source, default_name, shown, some

COLUMNS = ("path", "label", "split", "group")
MAX_LINE = 1 << 20
"""Characters; a longer line is no table, and is refused before it fills the memory."""

MAX_CELL = 4096
"""Characters: what is longer is no name, and all names take the room of the longest."""

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
Row = tuple[str, dict[str, str]]
"""Where a row stands ("line 7"), and its cells by column."""


def open_csv(data: Path, root: Path | None) -> Source:
    """Read a CSV manifest; paths are relative to `root`, or to the manifest's folder.

    Raises SourceError naming the line: an unclosed quote, a wrong number of fields, NUL, a path that is empty, twice,
    a URL or outside the root, an unknown split. Files that are not there are no error here.
    """
    try:
        with data.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            notes: list[str] = []
            return _source(data, root, _csv_rows(file, shown(str(data)), notes), notes)
    except OSError as error:
        raise _unreadable(data, error.strerror or str(error)) from error


def open_parquet(data: Path, root: Path | None) -> Source:
    """Read a Parquet manifest, with the columns and the rules of the CSV; needs the extra `parquet`."""
    try:
        import pyarrow  # pyright: ignore[reportMissingImports] (an extra)
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        remedy = 'Install it: pip install "offshelf[parquet]"; or save the table as CSV'
        raise SourceError("reading Parquet needs pyarrow", where=shown(str(data)), remedy=remedy) from error
    try:
        with parquet.ParquetFile(data) as file:
            header = list(file.schema_arrow.names)
            notes = _check_header(header, shown(str(data)))
            batches = file.iter_batches(columns=[name for name in header if name in COLUMNS])
            return _source(data, root, _parquet_rows(batches), notes)
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(data, first_line(error)) from error


def _unreadable(data: Path, reason: str) -> SourceError:
    return SourceError(f"the manifest cannot be read: {reason}", where=shown(str(data)), remedy="Write it again")


def _source(data: Path, root: Path | None, rows: Iterable[Row], notes: list[str]) -> Source:
    table = _Table((root or data.parent).absolute(), shown(str(data)))
    records = sorted((table.record(place, cells) for place, cells in rows), key=lambda record: record.id)
    if not records:
        raise SourceError(
            "the manifest lists no images", where=shown(str(data)), remedy="Add a row path,label for each"
        )
    origin = str(data.absolute()) + (f", below {root.absolute()}" if root else "")
    return Source(default_name(data.stem), origin, tuple(records), tuple(notes))


def _check_header(header: Sequence[str], where: str) -> list[str]:
    """Return the notes on a header; raises where it has no `path`, or names a column twice."""
    if "path" not in header:
        remedy = "Begin with a header line path,label[,split,group], separated by commas"
        raise SourceError(f"no column 'path' in the header ({some(header)})", where=where, remedy=remedy)
    if twice := {name for name in header if header.count(name) > 1}:
        raise SourceError(f"columns named twice: {some(list(twice))}", where=where, remedy="Rename or remove one")
    unknown = [name for name in header if name not in COLUMNS]
    return [f"ignored columns of the manifest: {some(unknown)}"] if unknown else []


def _csv_rows(file: TextIO, where: str, notes: list[str]) -> Iterator[Row]:
    reader = csv.reader(_lines(file, where), strict=True)
    rows = _numbered(reader, where)
    header = [name.strip() for name in next(rows, ("", []))[1]]
    notes.extend(_check_header(header, where))
    for place, row in rows:
        if len(row) != len(header):
            raise _bad_row(
                f"{len(row)} fields where the header has {len(header)}",
                f"{where}, {place}",
                "Put quotes around a name that has a comma in it, and close every quote",
            )
        yield place, dict(zip(header, row, strict=True))


def _numbered(reader: Any, where: str) -> Iterator[tuple[str, list[str]]]:
    """Yield rows with the line each begins on; blank lines are passed over."""
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _bad_row(str(error), f"{where}, line {start}", "Close every quote; double those inside") from error
        # A quote left open swallows whole rows until the next one, and the result can look like a valid field.
        if any("\n" in cell or "\r" in cell for cell in row):
            raise _bad_row("a field goes on over several lines", f"{where}, line {start}", "Close every quote")
        if row:
            yield f"line {start}", row


def _lines(file: TextIO, where: str) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE or "\0" in line:
            problem = "a NUL character" if "\0" in line else f"a line of {MAX_LINE} characters or more"
            raise _bad_row(problem, f"{where}, line {number}", "Save the table as plain CSV in UTF-8")
        yield line


def _parquet_rows(batches: Iterable[Any]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for cells in batch.to_pylist():
            number += 1
            yield f"row {number}", {name: "" if value is None else str(value) for name, value in cells.items()}


def _bad_row(what: str, where: str, remedy: str) -> SourceError:
    return SourceError(what, where=where, remedy=remedy)


class _Table:
    """Turns rows into records, and remembers what it needs to refuse twins and paths that leave the root."""

    def __init__(self, root: Path, where: str) -> None:
        self.root, self.where = posixpath.normpath(root), where
        self._real_root = os.path.realpath(root)
        self._seen: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def record(self, place: str, cells: dict[str, str]) -> Record:
        if longest := max(cells.values(), key=len)[MAX_CELL:]:
            raise _bad_row(f"a cell of {MAX_CELL + len(longest)} characters", f"{self.where}, {place}", "Shorten it")
        name = self._id(cells["path"], f"{self.where}, {place}")
        if (first := self._seen.setdefault(name, place)) != place:
            raise _bad_row(
                f"{shown(name)!r} is listed twice, first on {first}", f"{self.where}, {place}", "Remove one of the rows"
            )
        label, split, group = (cells.get(column, "").strip() or None for column in COLUMNS[1:])
        return Record(name, _join(self.root, name), label, self._split(split, place), group)

    def _split(self, value: str | None, place: str) -> str | None:
        if value is not None and value.casefold() not in SPLITS:
            what = f"no split {shown(value)!r}"
            raise _bad_row(what, f"{self.where}, {place}", f"Write one of {', '.join(SPLITS)}, or nothing")
        return SPLITS[value.casefold()] if value is not None else None

    def _id(self, path: str, where: str) -> str:
        """Return a path as relative to the root; raises where it is empty, a URL, or leads out of the root."""
        if not path.strip() or "\0" in path:
            raise _bad_row(
                "the path is empty" if not path.strip() else "a NUL in the path", where, "Give a file's path"
            )
        if URL.match(path):
            raise _bad_row(f"{shown(path)!r} is a URL", where, "Download the images, and list the files")
        name = self._below_root(path)
        if name is None or ".." in path.split("/") or not self._stays(name):
            raise _bad_row(
                f"{shown(path)!r} leads out of the root {shown(self.root)!r}",
                where,
                "Give paths below the root without '..', or name a folder that holds all of them with --root",
            )
        return name

    def _below_root(self, path: str) -> str | None:
        """Return a path relative to the root; None for the root itself and for absolute paths elsewhere."""
        name = posixpath.normpath(path)
        if not name.startswith("/"):
            return name if name != "." else None
        bases = (_join(root, "") for root in (self.root, self._real_root))
        return next((name[len(base) :] for base in bases if name.startswith(base)), None)

    def _stays(self, name: str) -> bool:
        """Whether the file really lies in the root, links followed; the folders' real paths are remembered."""
        folder, _, base = name.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(_join(self._real_root, folder))
        path = _join(self._folders[folder], base)
        real = os.path.realpath(path) if _is_link(path) else path
        return real.startswith(_join(self._real_root, ""))


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False
