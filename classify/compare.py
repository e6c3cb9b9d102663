"""Runs side by side: what each chose and scored, and which differences hold on the images that they share."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from classify.evaluate import METRICS
from classify.statistics import mcnemar, paired_rows
from extract.errors import FitError, OptionError, unknown

PARTS = {"test": "predictions.csv", "out_of_fold": "out_of_fold.csv"}
"""Where a run's answers lie; those out of fold are not in every run."""
FIELDS = ["id", "split", "label", "predicted", "probability"]
KINDS = {
    **dict.fromkeys(("features", "head", "metric"), str),
    **dict.fromkeys(("n_train", "n_test"), int),
    "layers": list,
    "params": dict,
    "test": dict,
}
"""What a metrics.json has to hold to be compared."""
SHOWN = (*KINDS, "features_key", "transform", "protocol", "cv", "seconds")
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
    metrics: dict[str, Any]
    answers: dict[str, Answers]


def compare(runs: Sequence[Path]) -> dict[str, Any]:
    """Put runs side by side: folders, or names under runs/ -> {metric, best, runs, pairs, notes}, ready for JSON.

    Every run is set against the one that scores best on its own test images, on those images that both have under one
    id and one label: the differences, best - other, with their intervals, and McNemar's p.
    """
    if len(runs) < 2 or len(set(runs)) < len(runs):
        raise OptionError(f"{len(set(runs))} run(s) to compare", remedy="Name two runs or more, each once")
    found = [read_run(run) for run in runs]
    metric = _leading(found)
    best = max(found, key=lambda run: run.metrics["test"][metric]["value"])
    others = [run for run in found if run is not best]
    pairs = [_pair(best, run, part, metric) for part in PARTS for run in others if _have(part, best, run)]
    rows = [{"run": run.name, **{key: run.metrics.get(key) for key in SHOWN}} for run in found]
    return {"metric": metric, "best": best.name, "runs": rows, "pairs": pairs, "notes": _notes(found, pairs, metric)}


def read_run(run: Path) -> Run:
    """Read the metrics and the answers of a run; FitError where there is none, or what there is makes no sense."""
    folder = next((each for each in (run, Path("runs") / run) if (each / "metrics.json").is_file()), None)
    if folder is None:
        raise FitError("no run of that name or path", where=str(run), remedy="Make one with: pipeline.py fit FEATURES")
    metrics = _read_metrics(folder / "metrics.json")
    there = [part for part, name in PARTS.items() if part == "test" or (folder / name).exists()]
    return Run(str(run), metrics, {part: _read_answers(folder / PARTS[part]) for part in there})


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        _check_size(path, MAX_JSON_BYTES)
        metrics = json.loads(path.read_text(encoding="utf-8"))
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


def _check_size(path: Path, most: int) -> None:
    """Raise FitError for what is no file, or too large to be ours; nothing has been read of it by then."""
    if not path.is_file():
        raise FitError("there is no such file", where=str(path), remedy=REMEDY)
    if (size := path.stat().st_size) > most:
        raise FitError(f"is too large ({size} bytes) for one of ours (at most {most})", where=str(path), remedy=REMEDY)


def _is_interval(found: Any) -> bool:
    numbers = [found.get(name) for name in ("value", "low", "high")] if isinstance(found, dict) else [None]
    # Comparing, unlike isfinite, takes whole numbers of any length; NaN compares false.
    return all(isinstance(number, int | float) and -SANE < number < SANE for number in numbers)


def _read_answers(path: Path) -> Answers:
    answers: Answers = {}
    try:
        _check_size(path, MAX_CSV_BYTES)
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for line, (id_, _, label, predicted, _) in _csv_rows(csv.reader(file, strict=True), str(path)):
                if id_ in answers:
                    raise FitError(f"two rows for {id_!r}", where=f"{path} line {line}", remedy=REMEDY)
                # A million rows have a thousand names.
                answers[id_] = sys.intern(label), sys.intern(predicted)
    except (OSError, csv.Error) as error:
        raise FitError(f"cannot be read ({error})", where=str(path), remedy=REMEDY) from error
    return answers


def _csv_rows(reader: Any, where: str) -> Iterator[tuple[int, list[str]]]:
    if next(reader, None) != FIELDS:
        raise FitError(f"the first line is not {','.join(FIELDS)}", where=where, remedy=REMEDY)
    for row in islice(reader, MAX_ROWS):
        if len(row) != len(FIELDS):
            said = f"{len(row)} cells where {len(FIELDS)} belong"
            raise FitError(said, where=f"{where} line {reader.line_num}", remedy=REMEDY)
        yield reader.line_num, row
    if next(reader, None) is not None:
        raise FitError(f"more than {MAX_ROWS} rows", where=where, remedy=REMEDY)


def _leading(runs: Sequence[Run]) -> str:
    """Return the metric that the first run was chosen by; all must have been measured by it."""
    metric = runs[0].metrics["metric"]
    for run in runs:
        if metric not in run.metrics["test"]:
            remedy = f"Compare runs of one kind: {runs[0].name} was chosen by it."
            unknown(f"metric in the test of {run.name}:", metric, run.metrics["test"], FitError, remedy=remedy)
    return metric


def _have(part: str, *runs: Run) -> bool:
    return all(part in run.answers for run in runs)


def _pair(best: Run, other: Run, part: str, metric: str) -> dict[str, Any]:
    """Compare two runs on one part: {metric: {mean, low, high, p}} of best - other on shared images, and words."""
    ours, theirs = best.answers[part], other.answers[part]
    both = [id_ for id_ in ours if id_ in theirs]
    shared = [id_ for id_ in both if ours[id_][0] == theirs[id_][0]]
    counts = {"n": len(shared), "n_best": len(ours), "n_run": len(theirs), "n_other_label": len(both) - len(shared)}
    said = {"run": other.name, "best": best.name, "on": part, **counts, "metrics": {}, "mcnemar": None}
    if not shared:
        return said | {"words": f"{best.name} and {other.name} share no image of the {_part_name(part)}"}
    y, a, b = _coded([ours[id_][0] for id_ in shared], *([each[id_][1] for id_ in shared] for each in (ours, theirs)))
    found = {name: asdict(each) for name, each in paired_rows(y, a, b, seed=0).items()}
    words = _words(said, metric if metric in METRICS else METRICS[0], found)
    return said | {"metrics": found, "mcnemar": mcnemar(y, a, b), "words": words}


def _coded(*columns: list[str]) -> list[np.ndarray]:
    """Number names by one table: lists of (n,) -> arrays (n,) int64."""
    number = {name: at for at, name in enumerate(dict.fromkeys(name for column in columns for name in column))}
    return [np.array([number[name] for name in column], dtype=np.int64) for column in columns]


def _part_name(part: str) -> str:
    return {"test": "test", "out_of_fold": "training part, out of fold"}[part]


def _words(pair: dict[str, Any], metric: str, found: dict[str, dict[str, float]]) -> str:
    """Say in a sentence whether the difference is beyond doubt, and how large it may be."""
    mean, low, high = (found[metric][name] * 100 for name in ("mean", "low", "high"))
    where = f"on {pair['n']} images of the {_part_name(pair['on'])}"
    shown = f"{mean:+.1f} points of {metric.replace('_', ' ')} ({low:+.1f} to {high:+.1f})"
    sure = "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"
    return f"{pair['best']} is {sure} {pair['run']}: {shown} {where}"


def _notes(runs: Sequence[Run], pairs: Sequence[dict[str, Any]], metric: str) -> list[str]:
    """Say in words what makes the comparison less than it seems."""
    said = [note for pair in pairs for note in _pair_notes(pair)]
    if len({run.metrics["features"].partition("/")[0] for run in runs}) > 1:
        said.append("the runs are on different feature sets: images are taken for the same where id and label are")
    if chosen := [run.name for run in runs if run.metrics["metric"] != metric]:
        said.append(f"compared by {metric}, by which {', '.join(chosen)} was not chosen")
    if any(run.metrics.get("grouping") for run in runs):
        said.append("some images belong to groups, which the runs' tables do not name: true differences may lie wider")
    if len(runs) > 2:
        said.append(f"the best of {len(runs)} runs is a little too good, having been picked on these same images")
    return said


def _pair_notes(pair: dict[str, Any]) -> Iterator[str]:
    n, names = pair["n"], f"{pair['best']} and {pair['run']}"
    if not n == pair["n_best"] == pair["n_run"]:
        yield (
            f"{names} differ in the images of the {_part_name(pair['on'])} ({pair['n_best']} and {pair['n_run']}): "
            f"their difference is over the {n} that they share"
        )
    if pair["n_other_label"]:
        yield f"{pair['n_other_label']} images have another label in {pair['run']} than in {pair['best']}: left out"
