"""Everything that was tried: each configuration with its scores, and whether its fit came to an end."""

from collections.abc import Mapping
from typing import Any

from classify.report.evidence import Evidence, Metrics, Row, Section, dig, is_measure
from classify.report.taps import is_winner, of_probe
from classify.report.text import (
    MEASURES,
    clipped,
    folded,
    interval,
    layers,
    measure_name,
    number,
    params,
    plural,
    table,
    transform,
)

MAX_TRIED = 300


def section(evidence: Evidence) -> Section | None:
    """Show every configuration, the best first; those that did not converge say so."""
    rows = evidence.get("search") or []
    if not rows:
        return _by_protocol(evidence.get("protocol", "tried"))
    metric = str(evidence.get("metric") or "accuracy")
    ordered = sorted(rows, key=lambda row: -(dig(row, metric, "value") or 0))[:MAX_TRIED]
    names = [name for name in MEASURES if any(is_measure(row.get(name)) for row in ordered)]
    cells = [_row(row, evidence.metrics, names) for row in ordered]
    head = ("layer", "features", "head", "setting", "stage", *map(measure_name, names), "seconds", "converged")
    caption = (
        f"the best {len(ordered):,} of {len(rows):,}, by {measure_name(metric)} out of fold; all are in metrics.json"
    )
    summary = f"{plural(len(rows), 'configuration')}{_unfinished(rows)}"
    said = f"<p>{of_probe(evidence.metrics)}</p>" if evidence.get("probe") else ""
    return Section("tried", "Everything tried", said + folded(summary, table(head, cells, caption)))


def _by_protocol(rows: Any) -> Section | None:
    """Show what a published protocol tried: its own columns, whatever they are."""
    if not rows:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows[:MAX_TRIED]]
    caption = f"{len(cells):,} of {len(rows):,}, in the order of the protocol"
    made = table([clipped(name) for name in names], cells, caption)
    return Section("tried", "Everything tried", folded(plural(len(rows), "setting"), made))


def _cell(value: Any) -> str:
    return interval(value) if is_measure(value) else params(value) if isinstance(value, Mapping) else number(value)


def _unfinished(rows: list[Row]) -> str:
    n = sum(row.get("converged") is False for row in rows)
    return f", {n} of them not converged" if n else ", all converged"


def _row(row: Row, metrics: Metrics, names: list[str]) -> list[str]:
    star = " ★" if is_winner(row, metrics) else ""
    end = "-" if row.get("converged") is None else "yes" if row["converged"] else "<strong>no</strong>"
    return [
        f"{layers(row)}{star}",
        transform(row),
        clipped(row.get("head") or "-"),
        params(row.get("params")),
        clipped(row.get("stage") or "-"),
        *(interval(row.get(name)) for name in names),
        number(row.get("seconds")),
        end + (", at the limit" if row.get("at_limit") else ""),
    ]
