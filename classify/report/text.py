"""Numbers, names and tables as HTML; whatever comes from a user goes through `printable`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from classify.plots import clip, printable
from classify.report.evidence import dig, is_measure

MAX_NAME = 120
"""Characters of a name that are shown; of longer ones the middle is left out."""

MINUTES_S, HOURS_S = 90, 5400
"""From how many seconds on a time is told in minutes, and in hours."""

MEASURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "map": "mean average precision",
    "log_loss": "log-loss (nats)",
    "subset_accuracy": "all labels right",
}
NO_SHARES = {"log_loss"}
"""Measures that are no share of 1."""

TRANSFORMS = {
    "std": "each feature standardised",
    "l2": "rows of unit length",
    "pow": "signed square root, unit length",
    "pcaw": "PCA-whitened",
    "none": "as they are",
}


def clipped(text: Any) -> str:
    """Escape a name, and leave out the middle of a very long one."""
    return printable(clip(str(text), MAX_NAME))


def percent(value: Any) -> str:
    """Write a share, a number or its text, as a percentage; a dash where there is none."""
    return "-" if value in (None, "") else f"{float(value) * 100:z.1f} %"


def interval(found: Any) -> str:
    """Write a measure that is a share, with its 95 % interval."""
    if not is_measure(found):
        return percent(dig(found, "value"))
    return f"{percent(found['value'])} ({percent(found['low'])} to {percent(found['high'])})"


def share(value: Any) -> str:
    """Write a share that may come with its interval."""
    return interval(value) if is_measure(value) else percent(value)


def measure(name: str, found: Any) -> str:
    """Write a measure by its name: a share as percentages, anything else as plain numbers."""
    if name in NO_SHARES and is_measure(found):
        return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
    return interval(found)


def measure_name(name: str) -> str:
    """Say a measure in words."""
    return MEASURES.get(name) or clipped(name.replace("_", " "))


def number(value: Any) -> str:
    """Write a number with four digits that count, and anything else as its text; a dash for None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "-" if value in (None, "") else clipped(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Write a time as one says it: 45 seconds, 12 minutes, 1.5 hours."""
    if seconds >= HOURS_S:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= MINUTES_S else plural(round(seconds), "second")


def decimal(value: Any) -> str:
    """Write a number, or its text as a CSV file holds it, with four digits that count."""
    try:
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return number(value)


def params(found: Mapping[str, Any] | None) -> str:
    """Write the values of a head's parameters."""
    return ", ".join(f"{clipped(name)} = {number(value)}" for name, value in (found or {}).items()) or "nothing to tune"


def layers(found: Mapping[str, Any]) -> str:
    """Name the tap, or the taps side by side."""
    return " + ".join(map(clipped, found.get("layers") or [found.get("layer") or "-"]))


def transform(found: Mapping[str, Any]) -> str:
    """Say what is done to features before the head."""
    name = found.get("transform")
    return "-" if name is None else TRANSFORMS.get(name) or clipped(name)


def sentence(text: str) -> str:
    """Escape words, and begin and end them as a sentence."""
    told = text.strip()
    end = "" if told.endswith((".", "!", "?")) else "."
    return printable(told[:1].upper() + told[1:]) + end if told else ""


def plural(n: int, one: str, many: str | None = None) -> str:
    """Count things: 1 pair, 1,204 pairs."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Lay out cells that are HTML already; a cell that starts with <td or <th is kept as it is."""
    lines = ["".join(c if c.startswith(("<td", "<th")) else f"<td>{c}</td>" for c in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    said = f"<caption>{caption}</caption>" if caption else ""
    inner = f"<table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    # A region that scrolls sideways must be reached by the keyboard too.
    return f'<div class="wide" tabindex="0" role="group" aria-label="{caption or "table"}">{inner}</div>'


def folded(summary: str, inner: str) -> str:
    """Hide what is for those who ask."""
    return f"<details><summary>{summary}</summary>{inner}</details>"


def beside(chart: str, words: str) -> str:
    """Put words beside a chart, or under it where there is no room."""
    return f'<div class="beside"><div>{chart}</div><div>{words}</div></div>'


def bullets(lines: Iterable[str], kind: str = "ul") -> str:
    """List lines of HTML; nothing where there are none."""
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f"<{kind}>{items}</{kind}>" if items else ""
