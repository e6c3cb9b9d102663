"""The learning curve: what more images of the same kind would bring."""

from typing import Any

from classify.plots import Curve, Size, curve_plot
from classify.report.evidence import Evidence, Metrics, Section, is_measure, leading
from classify.report.taps import of_probe
from classify.report.text import beside, folded, interval, measure_name, number, percent, sentence, table

VERDICTS = {
    "data-limited": "worth collecting",
    "saturated": "hardly worth the work",
    "undecided": "whether that is more than chance is not clear",
}
WORTH = 0.01
"""A gain by twice the images that is worth collecting them, where the run does not say: one image in a hundred."""


def section(evidence: Evidence) -> Section | None:
    """Show the learning curve, in a plot and in words."""
    found = evidence.get("learning_curve")
    curve = as_curve(found) if found else None
    if curve is None:
        return None
    name = measure_name(str(found.get("metric") or leading(evidence) or "accuracy"))
    told = _twice(found) or sentence(str(found.get("words") or "No curve could be fitted to these points"))
    words = f"<p>{of_probe(evidence.metrics)}{told}</p>"
    chart = curve_plot(curve, name, f"learning curve: {name} over the number of training images")
    body = beside(chart, words + _legend(curve)) + _as_table(curve, found, name)
    return Section("more-images", "Would more images help?", body)


def as_curve(found: Metrics) -> Curve | None:
    """Read the learning curve of metrics.json, errors as shares that are right; None where nothing was measured."""
    measured, fitted, predicted = (_sizes(found.get(key)) for key in ("points", "curve", "predictions"))
    if not measured:
        return None
    beyond = float(found.get("refused_beyond") or max(size.n for size in measured))
    return Curve(measured, fitted, predicted, beyond)


def _sizes(rows: Any) -> list[Size]:
    kept = [row for row in rows or [] if is_measure(row.get("error"))]
    return [Size(row["n"], *(1 - row["error"][end] for end in ("value", "high", "low"))) for row in kept]


def with_twice(found: Any) -> Size | None:
    """Return what is predicted for twice the largest number of images that was measured; None where nothing is."""
    curve = as_curve(found) if found else None
    if curve is None:
        return None
    twice = 2 * max(size.n for size in curve.measured)
    return min(curve.predicted, key=lambda size: abs(size.n - twice), default=None)


def right_now(found: Metrics) -> float:
    """Return the share of right answers at the largest size: of the curve, as the prediction is; else as measured."""
    largest = max(_sizes(found["points"]), key=lambda size: size.n)
    if found.get("a") is None or found.get("eta") is None:
        return largest.value
    return 1 - found["a"] - found["eta"] * largest.n**-0.5


def verdict_of(found: Metrics) -> str:
    """Return data-limited, saturated or undecided, as the run says or as twice the images promise."""
    said, slope = found.get("verdict"), found.get("slope_per_doubling")
    if said in VERDICTS:
        return said
    return "undecided" if slope is None else "data-limited" if -slope >= WORTH else "saturated"


def _twice(found: Metrics) -> str:
    then = with_twice(found)
    if then is None:
        return ""
    likely = f"{percent(then.low)} to {percent(then.high)}"
    return (
        f"With <strong>twice the training images</strong> of the same kind, expect about "
        f"<strong>{percent(then.value)}</strong> ({likely}) instead of {percent(right_now(found))}: "
        f"{VERDICTS[verdict_of(found)]}."
    )


def _legend(curve: Curve) -> str:
    return (
        '<p class="soft">Dots were measured, by training on parts of the training images; open diamonds and the dashed '
        "line are predicted; the band holds what is likely (95 %). Beyond "
        f"{number(round(curve.refused_beyond))} images nothing is predicted: too far from what was measured.</p>"
    )


def _as_table(curve: Curve, found: Metrics, name: str) -> str:
    runs = {row["n"]: row.get("runs") for row in found["points"]}
    rows = [(number(size.n), "measured", _right(size), number(runs.get(size.n))) for size in curve.measured]
    rows += [(number(size.n), "predicted", _right(size), "-") for size in curve.predicted]
    return folded("as a table", table(("training images", "", f"{name} (95 % interval)", "runs"), rows))


def _right(size: Size) -> str:
    return interval({"value": size.value, "low": size.low, "high": size.high})
