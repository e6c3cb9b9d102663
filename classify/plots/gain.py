"""Differences with their intervals, one below the other, on a scale around nothing gained and nothing lost."""

from collections.abc import Sequence

from classify.plots.dots import BOTTOM, LEFT, RIGHT, ROW, TOP, Point, point_row
from classify.plots.svg import WIDTH, Axis, Scale, clip, columns, document, printable, ticks

LEAST = 0.01
"""Of the scale on either side: a difference of nothing needs one too."""


def gain_plot(points: Sequence[Point], title: str) -> str:
    """Draw differences of shares, -1..1, in the order given: -> an SVG document."""
    edges = [edge for point in points for edge in (point.low, point.high)]
    low, high = min(-LEAST, *edges), max(LEAST, *edges)
    axis = Axis(Scale(low, high, LEFT + 24, WIDTH - RIGHT - 24), [(t, f"{t * 100:+g}") for t in ticks(low, high)], "")
    bottom = TOP + ROW * len(points)
    rows = "".join(_row(point, TOP + ROW * at, axis) for at, point in enumerate(points))
    shown = f'<text x="{LEFT}" y="22" font-weight="600">{printable(clip(title, 60))}</text>'
    return document(bottom + BOTTOM, title, f"{shown}{columns(axis, TOP, bottom)}{rows}")


def _row(point: Point, top: int, axis: Axis) -> str:
    said = f"{point.value * 100:+z.1f} points, 95 % interval {point.low * 100:+z.1f} to {point.high * 100:+z.1f}"
    return point_row(point, top, axis, said=said, shown=f"{point.value * 100:+z.1f}")
