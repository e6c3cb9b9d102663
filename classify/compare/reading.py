"""What a run left: its metrics and its answers, read with care, as the folder may come from anyone."""

import csv
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from extract.errors import FitError

PARTS = {"test": "predictions.csv", "out_of_fold": "out_of_fold.csv"}
"""Where a run's answers lie; those out of fold are not in every run."""
FIELDS = ["id", "split", "label", "predicted", "probability"]
FOLD = "fold"
"""A further column of answers out of fold, which runs of earlier versions lack."""
KINDS = {
    **dict.fromkeys(("features", "head", "metric"), str),
    **dict.fromkeys(("n_train", "n_test"), int),
    "layers": list,
    "params": dict,
    "test": dict,
}
"""What a metrics.json has to hold to be compared."""
MAX_JSON_BYTES = 64 << 20
MAX_CSV_BYTES = 512 << 20
MAX_ROWS = 2_000_000
SANE = 1e9
REMEDY = "Write the run again: pipeline.py fit FEATURES"

Answers = dict[str, tuple[str, str]]
"""The label and the answer of each image, by its id."""


@dataclass(frozen=True)
class Run:
    """A run as its files tell it: `metrics` is its metrics.json, `answers` has those of every part in PARTS."""

    name: str
    folder: Path
    metrics: dict[str, Any]
    answers: dict[str, Answers]


def read_run(run: Path) -> Run:
    """Read the metrics and the answers of a run; FitError where there is none, or what there is makes no sense."""
    folder = next((each for each in (run, Path("runs") / run) if (each / "metrics.json").is_file()), None)
    if folder is None:
        raise FitError("no run of that name or path", where=str(run), remedy="Make one with: pipeline.py fit FEATURES")
    metrics = _read_metrics(folder / "metrics.json")
    there = [part for part, name in PARTS.items() if part == "test" or (folder / name).exists()]
    return Run(str(run), folder.resolve(), metrics, {part: _read_answers(folder / PARTS[part]) for part in there})


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        check_size(path, MAX_JSON_BYTES)
        metrics = json.loads(path.read_text(encoding="utf-8"), parse_float=_finite, parse_constant=_finite)
    except (OSError, ValueError, RecursionError) as error:
        said = f"cannot be read ({type(error).__name__}: {error})"[:200]
        raise FitError(said, where=str(path), remedy=REMEDY) from error
    for key, kind in KINDS.items():
        if not isinstance(metrics, dict) or not isinstance(metrics.get(key), kind):
            raise FitError(f"has no {key}, or it is no {kind.__name__}", where=str(path), remedy=REMEDY)
    for name, interval in metrics["test"].items():
        if not _is_interval(interval):
            raise FitError(f"the test's {name!r} is no value with an interval", where=str(path), remedy=REMEDY)
    return metrics


def _finite(text: str) -> float:
    """Read a number, which NaN, Infinity and 1e999 are not: no JSON could carry them on."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no number")
    return number


def check_size(path: Path, most: int) -> None:
    """Raise FitError for what is no file, or too large to be ours; nothing has been read of it by then."""
    if not path.is_file():
        raise FitError("there is no such file", where=str(path), remedy=REMEDY)
    if (size := path.stat().st_size) > most:
        raise FitError(f"is too large ({size} bytes) for one of ours (at most {most})", where=str(path), remedy=REMEDY)


def _is_interval(found: Any) -> bool:
    numbers = [found.get(name) for name in ("value", "low", "high")] if isinstance(found, dict) else [None]
    # Comparing, unlike isfinite, takes whole numbers of any length.
    return all(isinstance(number, int | float) and -SANE < number < SANE for number in numbers)


def _read_answers(path: Path) -> Answers:
    answers: Answers = {}
    try:
        check_size(path, MAX_CSV_BYTES)
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for line, (id_, _, label, predicted, *_) in _csv_rows(csv.reader(file, strict=True), str(path)):
                if id_ in answers:
                    raise FitError(f"two rows for {id_!r}", where=f"{path} line {line}", remedy=REMEDY)
                # A million rows have a thousand names.
                answers[id_] = sys.intern(label), sys.intern(predicted)
    except (OSError, csv.Error) as error:
        raise FitError(f"cannot be read ({error})", where=str(path), remedy=REMEDY) from error
    return answers


def _csv_rows(reader: Any, where: str) -> Iterator[tuple[int, list[str]]]:
    fields = next(reader, None)
    if fields not in (FIELDS, [*FIELDS, FOLD]):
        raise FitError(f"the first line is not {','.join(FIELDS)}", where=where, remedy=REMEDY)
    for row in islice(reader, MAX_ROWS):
        if len(row) != len(fields):
            said = f"{len(row)} cells where {len(fields)} belong"
            raise FitError(said, where=f"{where} line {reader.line_num}", remedy=REMEDY)
        yield reader.line_num, row
    if next(reader, None) is not None:
        raise FitError(f"more than {MAX_ROWS} rows", where=where, remedy=REMEDY)
