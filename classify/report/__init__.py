"""The page a run leaves: one HTML file that says in words what was found, and shows what that rests on."""

from collections.abc import Mapping, Sequence

from classify.plots import Point, dot_plot, printable
from classify.report import advice, calibration, classes, confusion, errors, finetuning, growth, reproduce, taps, tried
from classify.report import findings as data
from classify.report.evidence import Evidence, Metrics, Row
from classify.report.page import page
from classify.report.reproduce import command_line
from classify.report.taps import tap_plot
from classify.report.text import clipped
from classify.report.thumbnails import safe_pictures, wanted_thumbnails
from classify.report.verdict import verdict

__all__ = ["Point", "command_line", "dot_plot", "printable", "render", "tap_plot", "wanted_thumbnails"]

PARTS = (advice, finetuning, taps, growth, confusion, classes, calibration, errors, data, tried, reproduce)
"""What follows the verdict: the `section` of each, None where the run holds nothing for it."""


def render(
    metrics: Metrics,
    predictions: Sequence[Row],
    findings: Mapping[str, Sequence[Row]] | None = None,
    thumbnails: Mapping[str, str | None] | None = None,
) -> str:
    """Write the page from metrics.json, the rows of predictions.csv and of findings/*.csv, and data URIs by image id.

    Whatever the run does not hold is left out; `wanted_thumbnails` says which images the page can show.
    """
    pictures = safe_pictures(thumbnails or {}, wanted_thumbnails(predictions, findings or {}))
    evidence = Evidence(metrics, predictions, findings or {}, pictures)
    sections = [section for part in PARTS if (section := part.section(evidence))]
    return page(f"{clipped(str(metrics.get('features')))} · offshelf", verdict(evidence), sections)
