"""Pictures as SVG text, for the report and as files of their own; no colour is the only sign of anything."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LEFT, RIGHT, TOP, ROW, BOTTOM = 190, 90, 40, 30, 44
WIDTH = 720

STYLE = """
.offshelf-plot{font:13px system-ui,sans-serif;color:#1d2733;max-width:100%;height:auto}
.offshelf-plot text{fill:currentColor}.offshelf-plot .grid{stroke:currentColor;opacity:.15}
.offshelf-plot .bar{stroke:#2f6fb3;stroke-width:3}.offshelf-plot .dot{fill:#2f6fb3}
.offshelf-plot .best .bar{stroke:#c2571a}.offshelf-plot .best .dot{fill:#c2571a}
.offshelf-plot .best text{font-weight:600}
@media(prefers-color-scheme:dark){.offshelf-plot{color:#e4e9f0}
.offshelf-plot .bar{stroke:#7ab0ea}.offshelf-plot .dot{fill:#7ab0ea}
.offshelf-plot .best .bar{stroke:#f09a62}.offshelf-plot .best .dot{fill:#f09a62}}
"""


@dataclass(frozen=True)
class Point:
    """One row of a dot plot; numbers are shares, 0..1."""

    name: str
    value: float
    low: float
    high: float
    best: bool = False


def printable(text: str) -> str:
    """Escape text for HTML and SVG; bytes that are no UTF-8 show as \\udcXX, control characters as a blank."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return escape("".join(c if c.isprintable() else " " for c in whole), quote=True)


def dot_plot(points: Sequence[Point], title: str) -> str:
    """Draw each point with its interval on one scale, in the order given: -> an SVG document."""
    low, high = _range(points)
    height = TOP + ROW * len(points) + BOTTOM
    parts = [_axis(low, high, height)]
    parts += [_row(point, TOP + ROW * at + ROW // 2, low, high) for at, point in enumerate(points)]
    label = printable(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="offshelf-plot" role="img" aria-label="{label}" '
        f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"><style>{STYLE}</style>'
        f'<text x="8" y="20" font-weight="600">{label}</text>{"".join(parts)}</svg>'
    )


def _range(points: Sequence[Point]) -> tuple[float, float]:
    """Choose the scale: whole tenths around all that is drawn, never empty."""
    shown = [edge for point in points for edge in (point.low, point.high)]
    low = max(0.0, math.floor(min(shown, default=0.0) * 10 - 1e-9) / 10)
    high = min(1.0, math.ceil(max(shown, default=1.0) * 10 + 1e-9) / 10)
    return (low, high) if high > low else (max(0.0, high - 0.1), max(0.1, high))


def _x(value: float, low: float, high: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low), 1)


def _axis(low: float, high: float, height: int) -> str:
    """Draw a line at each tenth, or at each fiftieth where the scale is short."""
    step = 0.1 if high - low > 0.25 else 0.02
    ticks = [low + step * at for at in range(round((high - low) / step) + 1)]
    return "".join(
        f'<line class="grid" x1="{(x := _x(tick, low, high))}" x2="{x}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        f'<text x="{x}" y="{height - BOTTOM + 16}" text-anchor="middle">{tick * 100:.0f} %</text>'
        for tick in ticks
    )


def _row(point: Point, y: int, low: float, high: float) -> str:
    x, left, right = (_x(value, low, high) for value in (point.value, point.low, point.high))
    name = point.name if len(point.name) <= 26 else point.name[:12] + "…" + point.name[-13:]
    said = f"{point.value:.1%}, 95 % interval {point.low:.1%} to {point.high:.1%}"
    return (
        f'<g class="{"best" if point.best else "row"}"><title>{printable(point.name)}: {said}</title>'
        f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{printable(name)}</text>'
        f'<line class="bar" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/><circle class="dot" cx="{x}" cy="{y}" r="5"/>'
        f'<text x="{WIDTH - RIGHT + 14}" y="{y + 4}">{point.value * 100:.1f} %{" ★" if point.best else ""}</text></g>'
    )
