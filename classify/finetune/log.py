"""What trainings leave to look at: a table of all their looks, and event files for TensorBoard while they run."""

import csv
import io
import re
from pathlib import Path
from typing import Any, Self

from classify.finetune.job import Row
from extract.errors import OptionError
from extract.progress import Watch

COLUMNS = ("training", "step", "rate", "loss", "val_loss", "val_accuracy", "seconds")
SCALARS = ("rate", "loss", "val_loss", "val_accuracy")
NO_FILE_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class Log:
    """A watch that keeps every look of every training, once, and passes on the rest. A context manager.

    With a folder it writes event files there, in a folder for each training; raises OptionError where TensorBoard is
    not installed.
    """

    def __init__(self, watch: Watch, tensorboard: Path | None = None) -> None:
        self.start, self.advance, self.note, self.show = watch.start, watch.advance, watch.note, watch.show
        self.rows: list[Row] = []
        self._tensorboard = (tensorboard, _writer_class()) if tensorboard else None
        self._events: dict[str, Any] = {}
        self._last: dict[str, int] = {}

    def look(self, training: str, row: Row) -> None:
        """Keep a look, unless it is known: a training that goes on tells of its looks again."""
        if row["step"] <= self._last.get(training, -1):
            return
        self._last[training] = row["step"]
        self.rows.append({"training": training, **row})
        if self._tensorboard:
            self._write_events(training, row, *self._tensorboard)

    def csv(self) -> str:
        """Return all looks as a table."""
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([row[name] for name in COLUMNS] for row in self.rows)
        return text.getvalue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for events in self._events.values():
            events.close()

    def _write_events(self, training: str, row: Row, root: Path, writer: Any) -> None:
        """Write a look to the events of its training; what an earlier process wrote from that step on is void."""
        if training not in self._events:
            folder = root / NO_FILE_NAME.sub("-", training).strip("-.")
            self._events[training] = writer(str(folder), purge_step=row["step"])
        for name in SCALARS:
            if row[name] is not None:
                self._events[training].add_scalar(name, row[name], row["step"])
        self._events[training].flush()


def _writer_class() -> Any:
    """Import what writes event files."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        remedy = 'Install it: pip install "offshelf[tensorboard]"'
        raise OptionError("TensorBoard is not installed", where="--tensorboard", remedy=remedy) from error
    return SummaryWriter
