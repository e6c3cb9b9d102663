"""Runs side by side: what each chose and scored, and which differences hold on the images that they share."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from classify.compare.page import PART_NAMES, render_compare
from classify.compare.reading import KINDS, PARTS, Run, read_run
from classify.statistics import mcnemar, paired_rows
from extract.errors import FitError, OptionError, unknown

__all__ = ["compare", "read_run", "render_compare"]

SHOWN = (*KINDS, "features_key", "transform", "protocol", "cv", "seconds")
SUBSETS = "subset_accuracy"
"""What `accuracy` is called where images have several labels."""


def compare(runs: Sequence[Path]) -> dict[str, Any]:
    """Put runs side by side: folders, or names under runs/ -> {metric, best, runs, pairs, notes}, ready for JSON.

    Every run is set against the one that scores best on its own test images, on those images that both have under one
    id and one label: the differences, best - other, with their intervals, and McNemar's p.
    """
    found = [read_run(run) for run in runs]
    if (n := len({run.folder for run in found})) < max(2, len(found)):
        raise OptionError(f"{n} run(s) to compare", remedy="Name two runs or more, each once")
    metric = _leading(found)
    best = max(found, key=lambda run: run.metrics["test"][metric]["value"])
    others = [run for run in found if run is not best]
    pairs = [_pair(best, run, part, metric) for part in PARTS for run in others if _have(part, best, run)]
    rows = [{"run": run.name, **{key: run.metrics.get(key) for key in SHOWN}} for run in found]
    return {"metric": metric, "best": best.name, "runs": rows, "pairs": pairs, "notes": _notes(found, pairs, metric)}


def _leading(runs: Sequence[Run]) -> str:
    """Return the metric that the first run was chosen by; all must have been measured by it."""
    metric = runs[0].metrics["metric"]
    if len({_one_label(run) for run in runs}) > 1:
        raise FitError("some runs give one label an image, and others several", remedy="Compare runs of one kind")
    for run in runs:
        if metric not in run.metrics["test"]:
            remedy = f"Compare runs of one kind: {runs[0].name} was chosen by it"
            unknown(f"metric in the test of {run.name}:", metric, run.metrics["test"], FitError, remedy=remedy)
    return metric


def _have(part: str, *runs: Run) -> bool:
    return all(part in run.answers for run in runs)


def _one_label(run: Run) -> bool:
    return "accuracy" in run.metrics["test"]


def _pair(best: Run, other: Run, part: str, metric: str) -> dict[str, Any]:
    """Compare two runs on one part: {metric: {mean, low, high, p}} of best - other on shared images, and words."""
    ours, theirs = best.answers[part], other.answers[part]
    both = [id_ for id_ in ours if id_ in theirs]
    shared = [id_ for id_ in both if ours[id_][0] == theirs[id_][0]]
    counts = {"n": len(shared), "n_best": len(ours), "n_run": len(theirs), "n_other_label": len(both) - len(shared)}
    said = {"run": other.name, "best": best.name, "on": part, **counts, "metrics": {}, "mcnemar": None}
    if not shared:
        return said | {"words": f"{best.name} and {other.name} share no image of the {PART_NAMES[part]}"}
    y, a, b = _coded([ours[id_][0] for id_ in shared], *([each[id_][1] for id_ in shared] for each in (ours, theirs)))
    found = {name: asdict(each) for name, each in paired_rows(y, a, b, seed=0).items()}
    if not _one_label(best):
        # A set of labels is one name here, and an answer right where it is the whole set.
        found = {SUBSETS: found["accuracy"]}
    # A protocol may have a metric of its own, which whole tables of probabilities are needed for.
    lead = metric if metric in found else next(iter(found))
    return said | {"metrics": found, "mcnemar": mcnemar(y, a, b), "words": _words(said, lead, found[lead])}


def _coded(*columns: list[str]) -> list[np.ndarray]:
    """Number names by one table: lists of (n,) -> arrays (n,) int64."""
    number = {name: at for at, name in enumerate(dict.fromkeys(name for column in columns for name in column))}
    return [np.array([number[name] for name in column], dtype=np.int64) for column in columns]


def _words(pair: dict[str, Any], metric: str, found: dict[str, float]) -> str:
    """Say in a sentence whether the difference is beyond doubt, and how large it may be."""
    mean, low, high = (found[name] * 100 for name in ("mean", "low", "high"))
    where = f"on {pair['n']} images of the {PART_NAMES[pair['on']]}"
    shown = f"{mean:+z.1f} points of {metric.replace('_', ' ')} ({low:+z.1f} to {high:+z.1f})"
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
    if any(pair["on"] == "out_of_fold" and pair["n"] for pair in pairs):
        said.append("out of fold, training sets overlap, and other ones would move a difference more than it says")
    if len(runs) > 2:
        said.append(f"the best of {len(runs)} runs is a little too good, having been picked on these same images")
    return said


def _pair_notes(pair: dict[str, Any]) -> Iterator[str]:
    n, names = pair["n"], f"{pair['best']} and {pair['run']}"
    if not n == pair["n_best"] == pair["n_run"]:
        yield (
            f"{names} differ in the images of the {PART_NAMES[pair['on']]} ({pair['n_best']} and {pair['n_run']}): "
            f"their difference is over the {n} that they share"
        )
    if pair["n_other_label"]:
        yield f"{pair['n_other_label']} images have another label in {pair['run']} than in {pair['best']}: left out"
