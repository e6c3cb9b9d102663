"""What is taken for what: a shaded matrix, or the most frequent confusions of many classes."""

from typing import Any

from classify.report.evidence import Evidence, Section
from classify.report.page import MAX_SHADE
from classify.report.text import clipped, plural, table

MAX_MATRIX = 25
MAX_CONFUSIONS = 30
MAX_UPRIGHT = 8
"""Columns up to which their names stand upright."""


def section(evidence: Evidence) -> Section | None:
    """Show the confusion matrix of the test images."""
    found = evidence.get("confusion")
    if not found:
        return None
    if len(found["true"]) > MAX_MATRIX:
        return Section("confusions", "Most frequent confusions", _frequent(found))
    worst = most_confused(found)[:1]
    said = "".join(f"<p>Most often, {clipped(true)} is named {clipped(named)} ({n}).</p>" for n, true, named in worst)
    return Section("confusions", "What is taken for what", (said or "<p>Nothing is confused.</p>") + _matrix(found))


def _matrix(found: dict[str, Any]) -> str:
    rows = []
    for at, (name, counts) in enumerate(zip(found["true"], found["counts"], strict=True)):
        cells = [_cell(n, sum(counts), at == column) for column, n in enumerate(counts)]
        rows.append([f'<th scope="row">{clipped(name)}</th>', *cells])
    head = ["is ↓ named →", *(f"<span>{clipped(name)}</span>" for name in found["predicted"])]
    kind = "matrix" if len(head) - 1 <= MAX_UPRIGHT else "matrix tall"
    caption = "test images; bold on the diagonal where they are right, shaded by share of the row"
    inner = table(head, rows, caption)
    return f'<div class="{kind}">{inner}</div>'


def _cell(n: int, of: int, hit: bool) -> str:
    kind = ' class="hit"' if hit else ""
    shade = f' style="background:rgba(var(--shade),{MAX_SHADE * n / of:.2f})"' if n else ""
    return f"<td{kind}{shade}>{n or ('0' if hit else '')}</td>"


def most_confused(found: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Return (images, label, answer) of every confusion, the most frequent first."""
    pairs = [
        (count, true, named)
        for true, counts in zip(found["true"], found["counts"], strict=True)
        for named, count in zip(found["predicted"], counts, strict=True)
        if count and true != named
    ]
    return sorted(pairs, key=lambda pair: -pair[0])


def _frequent(found: dict[str, Any]) -> str:
    pairs = most_confused(found)
    rows = [(clipped(true), clipped(named), str(count)) for count, true, named in pairs[:MAX_CONFUSIONS]]
    caption = f"{len(rows)} of {plural(len(pairs), 'pair')}"
    return table(("is", "named", "images"), rows, caption) if rows else "<p>Nothing is confused.</p>"
