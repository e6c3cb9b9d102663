"""Layer by layer: what each tap is good for, as a plot and as a table."""

from classify.plots import Point, clip, dot_plot
from classify.report.evidence import Evidence, Metrics, Row, Section, dig, is_measure
from classify.report.text import (
    beside,
    folded,
    interval,
    layers,
    measure_name,
    number,
    params,
    printable,
    table,
    transform,
)

FALLBACK = "accuracy"


def tap_plot(metrics: Metrics) -> str:
    """Draw what each layer is good for: its best score out of fold, shallow to deep, as an SVG document."""
    name = _measure(metrics)
    points = [
        Point(_tap(row, metrics), found["value"], found["low"], found["high"], is_winner(row, metrics))
        for row in _shown(metrics)
        if is_measure(found := row.get(name))
    ]
    features = str(metrics.get("features")).partition("/")[0]
    return dot_plot(points, f"{clip(features, 24)}: {measure_name(name)} layer by layer")


def _shown(metrics: Metrics) -> list[Row]:
    """Return the best of each tap in the scan, and after them the winner where it is none of these."""
    rows = [*(metrics.get("per_layer") or [])]
    if any(is_winner(row, metrics) for row in rows):
        return rows
    return rows + [row for row in metrics.get("search") or [] if is_winner(row, metrics)][:1]


def _measure(metrics: Metrics) -> str:
    """Name what the taps are compared by: what the search maximised, or accuracy."""
    rows = metrics.get("per_layer") or []
    asked = metrics.get("metric") or FALLBACK
    return asked if any(is_measure(row.get(asked)) for row in rows) else FALLBACK


def _taps(row: Row) -> list[str]:
    return [*map(str, row.get("layers") or [row.get("layer")])]


def _tap(row: Row, metrics: Metrics) -> str:
    apart = is_winner(row, metrics) and row not in (metrics.get("per_layer") or [])
    return ("chosen: " if apart else "") + " + ".join(_taps(row))


def is_winner(row: Row, metrics: Metrics) -> bool:
    """Say whether a row is the configuration that was chosen; of a network that was trained, the probe's."""
    chosen = metrics.get("probe") or metrics
    same = all(row.get(key) == chosen.get(key) for key in ("head", "params", "transform"))
    return same and _taps(row) == [*map(str, chosen.get("layers") or [])]


def section(evidence: Evidence) -> Section | None:
    """Show the taps from shallow to deep."""
    m = evidence.metrics
    if not m.get("per_layer"):
        return None
    name = _measure(m)
    words = (
        f"<p>{of_probe(m)}Shallow to deep, each with its best setting, by {_judged(m)} on the training images. "
        f"★ is the configuration that was chosen.</p>"
        f"<p>{_rule(evidence)}</p>"
        '<p class="soft">The best of several is a little too good: believe the test.</p>'
    )
    rows = [
        (layers(row), number(row.get("dims")), transform(row), params(row.get("params")), interval(row.get(name)))
        for row in _shown(m)
    ]
    head = ("layer", "numbers per image", "features", "best setting", f"{measure_name(name)} (95 % interval)")
    return Section("layers", "Layer by layer", beside(tap_plot(m), words) + folded("as a table", table(head, rows)))


def of_probe(m: Metrics) -> str:
    """Say that what follows is of the linear probe, where the run goes on from it."""
    return "Of the linear probe, which fine-tuning is held against. " if m.get("probe") else ""


def _judged(m: Metrics) -> str:
    """Say how the rows were judged: as they say themselves, or by the folds."""
    said = dict.fromkeys(str(row["how"]) for row in m["per_layer"] if row.get("how"))
    folds = f"{m['folds']}-fold cross-validation" if m.get("folds") else "cross-validation"
    return printable(" or ".join(said)) or folds


def _rule(evidence: Evidence) -> str:
    rule = dig(evidence.get("selection") or evidence.get("probe", "selection"), "rule")
    return f"How it was chosen: {printable(str(rule))}." if rule else ""
