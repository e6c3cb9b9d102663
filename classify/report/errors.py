"""The worst errors: wrong answers given with the most confidence."""

from typing import Any

from classify.labels import SEPARATOR
from classify.report.evidence import Evidence, Section
from classify.report.text import clipped, percent, plural
from classify.report.thumbnails import MAX_WORST, card, cards
from classify.report.worst import sureness, worst_errors


def section(evidence: Evidence) -> Section | None:
    """Show the surest wrong answers."""
    if not evidence.predictions:
        return None
    wrong = worst_errors(evidence.predictions)
    if not wrong:
        return Section("errors", "Worst errors", "<p>No test image was named wrong.</p>")
    shown = [
        card(
            [row["id"]],
            [
                f"<strong>named {_names(row['predicted'])}</strong>is {_names(row['label'])}",
                f"{percent(sureness(row))} sure",
            ],
            evidence.pictures,
        )
        for row in wrong[:MAX_WORST]
    ]
    said = (
        f"<p>{len(shown)} of {plural(len(wrong), 'wrong answer')}, the surest first: look here for wrong labels. "
        "All are in <code>predictions.csv</code>.</p>"
    )
    return Section("errors", "Worst errors", said + cards(shown))


def _names(cell: Any) -> str:
    """Write the labels of a cell so that a line can break between them."""
    return clipped(str(cell).replace(SEPARATOR, ", "))
