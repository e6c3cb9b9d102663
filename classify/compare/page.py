"""Runs side by side as one HTML page, in the style of a run's own report."""

from collections.abc import Mapping
from typing import Any

from classify.plots import Point, dot_plot
from classify.report.evidence import Row, Section
from classify.report.page import page
from classify.report.text import (
    bullets,
    clipped,
    layers,
    measure,
    measure_name,
    number,
    params,
    sentence,
    table,
    transform,
)

PART_NAMES = {"test": "test", "out_of_fold": "training part, out of fold"}


def render_compare(found: Mapping[str, Any]) -> str:
    """Write the page from what `compare` returned: the verdict, the runs, their differences."""
    sections = [_scores(found), _settings(found), _differences(found)]
    return page(f"{len(found['runs'])} runs compared · offshelf", _verdict(found), sections)


def _verdict(found: Mapping[str, Any]) -> str:
    said = [sentence(pair["words"]) for pair in found["pairs"] if pair["on"] == "test"]
    warned = bullets(sentence(note) for note in found["notes"])
    return (
        f"<header><h1>Best of {len(found['runs'])} runs: {clipped(found['best'])}</h1></header>"
        f'<div class="verdict">{bullets(said)}</div>' + (f'<div class="warn">{warned}</div>' if warned else "")
    )


def _scores(found: Mapping[str, Any]) -> Section:
    """Show what each run scored on its own test images."""
    name = found["metric"]
    points = [
        Point(row["run"], each["value"], each["low"], each["high"], row["run"] == found["best"])
        for row in found["runs"]
        for each in [row["test"][name]]
    ]
    names = list(dict.fromkeys(each for row in found["runs"] for each in row["test"]))
    rows = [
        (clipped(row["run"]), number(row["n_test"]), *(measure(each, row["test"].get(each)) for each in names))
        for row in found["runs"]
    ]
    head = ("run", "test images", *map(measure_name, names))
    chart = dot_plot(points, f"{measure_name(name)} on the test images")
    return Section("scores", "What each scored", chart + table(head, rows, "with 95 % intervals"))


def _settings(found: Mapping[str, Any]) -> Section:
    head = ("run", "features", "layers", "transform", "head", "settings", "protocol", "training images", "seconds")
    return Section("settings", "What each is", table(head, map(_setting, found["runs"])))


def _setting(row: Row) -> tuple[str, ...]:
    said = (layers(row), transform(row), clipped(row["head"]), params(row["params"]))
    return (
        clipped(row["run"]),
        clipped(row["features"]),
        *said,
        *map(number, (row["protocol"], row["n_train"], row["seconds"])),
    )


def _differences(found: Mapping[str, Any]) -> Section:
    """Show the best less each other run, by every measure, on the images of both."""
    rows = [
        (clipped(pair["run"]), PART_NAMES[pair["on"]], number(pair["n"]), measure_name(name), *_difference(each, pair))
        for pair in found["pairs"]
        for name, each in pair["metrics"].items()
    ]
    head = ("run", "on", "shared images", "measure", "best better by (95 % interval)", "p", "McNemar's p")
    words = (
        f"<p>By how much {clipped(found['best'])} is better than each other run, in points, on those images that both "
        "have under one id and one label. An interval that holds 0 shows no clear difference.</p>"
        '<p class="soft">Paired bootstrap of the images; McNemar: exact, mid-p.</p>'
    )
    return Section("differences", "Is it more than chance?", words + (table(head, rows) if rows else "<p>None.</p>"))


def _difference(found: Mapping[str, float], pair: Mapping[str, Any]) -> tuple[str, str, str]:
    mean, low, high = (f"{found[name] * 100:+z.1f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})", f"{found['p']:.3f}", f"{pair['mcnemar']:.3f}"
