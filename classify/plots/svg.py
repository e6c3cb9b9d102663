"""What every chart is made of: escaped text, scales, ticks, a frame with two axes, and the SVG document around them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 520
"""Of a chart, in its own units: small enough that a phone still shows its letters."""

STYLE = """
.offshelf-plot{font:13px system-ui,sans-serif;color:#1d2733;max-width:100%;height:auto}
.offshelf-plot text{fill:currentColor}.offshelf-plot .grid{stroke:currentColor;opacity:.15}
.offshelf-plot .bar{stroke:#2f6fb3;stroke-width:3}.offshelf-plot .dot{fill:#2f6fb3}
.offshelf-plot .best .bar{stroke:#c2571a}.offshelf-plot .best .dot{fill:#c2571a}
.offshelf-plot .best text{font-weight:600}
@media screen and (prefers-color-scheme:dark){.offshelf-plot{color:#e4e9f0}
.offshelf-plot .bar{stroke:#7ab0ea}.offshelf-plot .dot{fill:#7ab0ea}
.offshelf-plot .best .bar{stroke:#f09a62}.offshelf-plot .best .dot{fill:#f09a62}}
"""
CHART_STYLE = """
.offshelf-plot .line{fill:none;stroke:#2f6fb3;stroke-width:2}.offshelf-plot .band{fill:#2f6fb3;opacity:.16}
.offshelf-plot .ahead{fill:none;stroke:#c2571a;stroke-width:2}.offshelf-plot .dashed{stroke-dasharray:5 4}
.offshelf-plot .left-out{opacity:.7}.offshelf-plot .left-out .ahead{stroke:currentColor}
.offshelf-plot .refused{fill:currentColor;opacity:.08}.offshelf-plot .even{stroke:currentColor;opacity:.5}
@media screen and (prefers-color-scheme:dark){.offshelf-plot .line{stroke:#7ab0ea}
.offshelf-plot .band{fill:#7ab0ea}.offshelf-plot .ahead{stroke:#f09a62}}
@media screen and (max-width:480px){.offshelf-chart{font-size:17px}}
"""


def printable(text: str) -> str:
    """Escape text for HTML and SVG; bytes that are no UTF-8 show as \\udcXX, control characters as a blank."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return escape("".join(c if c.isprintable() else " " for c in whole), quote=True)


def clip(text: str, most: int) -> str:
    """Leave out the middle of a text of more than `most` characters."""
    kept = most - 1
    return text if len(text) <= most else f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"


@dataclass(frozen=True)
class Scale:
    """A straight line from numbers to places: `low` lies at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Place a number, to a tenth of a unit."""
        return round(self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low), 1)


@dataclass(frozen=True)
class Axis:
    """A scale, where it is labelled and with what, and its title."""

    scale: Scale
    ticks: Sequence[tuple[float, str]]
    title: str


def share_range(values: Iterable[float]) -> tuple[float, float]:
    """Choose a scale for shares: whole tenths around all of them within 0..1, never empty."""
    shown = list(values)
    low = max(0.0, math.floor(min(shown, default=0.0) * 10 - 1e-9) / 10)
    high = min(1.0, math.ceil(max(shown, default=1.0) * 10 + 1e-9) / 10)
    return (low, high) if high > low else (max(0.0, high - 0.1), max(0.1, high))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from low to high: at most `most`, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * at, 12) for at in range(first, last + 1)]


def share_axis(values: Iterable[float], start: float, end: float, title: str) -> Axis:
    """Build an axis of percentages around the shares that are drawn."""
    low, high = share_range(values)
    return Axis(Scale(low, high, start, end), [(tick, f"{tick * 100:g} %") for tick in ticks(low, high)], title)


def frame(x: Axis, y: Axis) -> str:
    """Draw the grid, the labels and the titles of two axes; y grows upwards, so that its scale starts at the bottom."""
    left, right, bottom, top = x.scale.start, x.scale.end, y.scale.start, y.scale.end
    across = "".join(
        f'<line class="grid" x1="{left}" x2="{right}" y1="{(at := y.scale(value))}" y2="{at}"/>'
        f'<text x="{left - 8}" y="{at + 4}" text-anchor="end">{printable(label)}</text>'
        for value, label in y.ticks
    )
    up = "".join(
        f'<line class="grid" x1="{(at := x.scale(value))}" x2="{at}" y1="{top}" y2="{bottom}"/>'
        f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{printable(label)}</text>'
        for value, label in x.ticks
    )
    titles = (
        f'<text x="{(left + right) / 2}" y="{bottom + 40}" text-anchor="middle">{printable(x.title)}</text>'
        f'<text x="{left}" y="{top - 10}">{printable(y.title)}</text>'
    )
    return across + up + titles


def path(points: Iterable[tuple[float, float]]) -> str:
    """Join places to the `d` of a path."""
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def columns(axis: Axis, top: float, bottom: float) -> str:
    """Draw the grid of an axis across and its labels below, and a stronger line at 0 where it has both signs."""
    lines = "".join(
        f'<line class="grid" x1="{(x := axis.scale(value))}" x2="{x}" y1="{top}" y2="{bottom + 6}"/>'
        f'<text x="{x}" y="{bottom + 24}" text-anchor="middle">{label}</text>'
        for value, label in axis.ticks
    )
    zero = axis.scale(0.0)
    even = f'<line class="even" x1="{zero}" x2="{zero}" y1="{top}" y2="{bottom + 6}"/>'
    return lines + even if axis.scale.low < 0 < axis.scale.high else lines


def diamond(x: float, y: float) -> str:
    """Draw an open diamond, told from a dot without its colour."""
    return f'<path class="ahead open" d="{path([(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)])}Z"/>'


def document(height: float, label: str, body: str) -> str:
    """Put an SVG document around a chart of WIDTH; the label is what a screen reader says."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="offshelf-plot offshelf-chart" role="img" '
        f'aria-label="{printable(label)}" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
        f"<style>{STYLE}{CHART_STYLE}</style>{body}</svg>"
    )
