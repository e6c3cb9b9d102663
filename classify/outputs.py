"""Where answers go, one by one as they come: CSV or JSON lines, which may go on where they stopped, or Parquet."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from classify.answers import csv_row, fields_of, table_row
from classify.folders import whole_file
from extract.errors import OptionError

Write = Callable[[dict[str, Any]], object]
Answers = Iterable[dict[str, Any]]

CSV, LINES, PARQUET = "csv", "jsonl", "parquet"
FORMS = (CSV, LINES, PARQUET)
ENDINGS = {".csv": CSV, ".json": LINES, ".jsonl": LINES, ".ndjson": LINES, ".parquet": PARQUET}
STREAM_FULL = "Make room where it leads to, or name a file that can be gone on with: -o FILE"
GROUP_ROWS = 4096
"""Answers of a row group of Parquet, which are held until it is written."""


def form_of(form: str | None, path: Path | None) -> str:
    """Choose the form of the output: the one that was asked for, else by the ending of the file, else CSV.

    Raises OptionError where the ending says another one than was asked for.
    """
    said = ENDINGS.get(path.suffix.lower()) if path else None
    if form and said and form != said:
        remedy = f"Take --format {said}, or a name that ends in .{form}"
        raise OptionError(f"the name says {said}, and {form} was asked for", where=str(path), remedy=remedy)
    return form or said or CSV


def writer_of(form: str, file: TextIO, classes: Sequence[str] | None, *, begun: bool = False) -> Write:
    """Return what writes an answer to a file as CSV or JSON lines, each flushed; `classes` is as in `fields_of`.

    A file that is `begun` has its header already.
    """
    if form == LINES:
        return lambda answer: (file.write(json.dumps(answer) + "\n"), file.flush())
    table: csv.DictWriter[str] = csv.DictWriter(file, fields_of(classes))
    if not begun:
        table.writeheader()
    return lambda answer: (table.writerow(csv_row(answer)), file.flush())


@contextmanager
def told(where: str, remedy: str) -> Iterator[None]:
    """Say of what the system refuses to write where that was; a pipe whose reader has seen enough is no error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OptionError(f"cannot write ({error.strerror or error})", where=where, remedy=remedy) from error


@contextmanager
def parquet_writer(path: Path, classes: Sequence[str] | None) -> Iterator[Write]:
    """Write answers to a Parquet file, row group by row group; it has its name once it is whole.

    Texts that are no UTF-8 are written with escapes. Raises OptionError where pyarrow is not there.
    """
    arrow, parquet = _pyarrow()
    schema = _schema(arrow, classes)
    rows: list[dict[str, Any]] = []
    with whole_file(path, OptionError) as temporary, parquet.ParquetWriter(temporary, schema) as table:

        def flush() -> None:
            table.write_table(arrow.Table.from_pylist(rows, schema=schema), row_group_size=GROUP_ROWS)
            rows.clear()

        def write(answer: dict[str, Any]) -> None:
            rows.append(_sound(table_row(answer)))
            if len(rows) == GROUP_ROWS:
                flush()

        yield write
        if rows:
            flush()


def check_parquet() -> None:
    """Raise OptionError where no Parquet can be written, before there is anything to write."""
    _pyarrow()


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow  # pyright: ignore[reportMissingImports] (an extra)
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        remedy = 'Install it: pip install "offshelf[parquet]"; or take --format csv'
        raise OptionError("writing Parquet needs pyarrow", remedy=remedy) from error
    return pyarrow, parquet


def _schema(arrow: Any, classes: Sequence[str] | None) -> Any:
    """Say of what type each column is."""
    text, number, names = arrow.string(), arrow.float64(), arrow.list_(arrow.string())
    kinds = {
        **dict.fromkeys(("id", "label", "status", "reason"), text),
        **dict.fromkeys(("abstained", "known"), arrow.bool_()),
        **dict.fromkeys(("labels", "set"), names),
        "top": arrow.list_(arrow.struct([("label", text), ("probability", number)])),
    }
    return arrow.schema([(_text(name), kinds.get(name, number)) for name in fields_of(classes)])


def _sound(value: Any) -> Any:
    """Make texts UTF-8, wherever they are in a row."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return [_sound(each) for each in value]
    return {_text(name): _sound(each) for name, each in value.items()} if isinstance(value, dict) else value


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
