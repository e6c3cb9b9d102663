"""How commands speak: tables and lines on stdout, progress and notes on stderr, JSON for scripts."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 1000
"""Columns of a table that no terminal shows: room for everything."""

err = Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(value, allow_nan=False))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


class Speed(ProgressColumn):
    """Steps per second, over the last of them."""

    def render(self, task: Task) -> Text:
        """Write the figure of one bar."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f}/s" if speed else "", style="progress.data.speed")


class Bar:
    """Progress on a terminal; silent where stderr is none."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.task, self.bad = progress, None, 0

    def start(self, what: str, total: int | None) -> None:
        """Begin a stage."""
        self.task, self.bad = self.progress.add_task(what, total=total, bad="", shown=""), 0

    def advance(self, steps: int, bad: int = 0) -> None:
        """Count steps of it, and how many of them came to nothing."""
        if self.task is not None:
            self.bad += bad
            self.progress.update(self.task, advance=steps, bad=f"{self.bad} bad" if self.bad else "")

    def show(self, text: str) -> None:
        """Show how it goes, until there is news."""
        if self.task is not None:
            self.progress.update(self.task, shown=text)

    def note(self, text: str) -> None:
        """Say what is worth knowing before the work goes on."""
        self.progress.console.print(f"Note: {text}", markup=False, soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """Show progress while the block runs."""
    counts = MofNCompleteColumn(), Speed(), TimeRemainingColumn(), TextColumn("{task.fields[bad]}", style="red")
    columns = TextColumn("{task.description:8}"), BarColumn(), *counts, TextColumn("{task.fields[shown]}")
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        yield Bar(progress)


def count(n: int, what: str) -> str:
    """Count things: `1 row`, `2 rows`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def size(n_bytes: int) -> str:
    """Write bytes for people."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} B"
