"""Values with their intervals, one below the other, on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass

from classify.plots.svg import WIDTH, Axis, clip, columns, document, printable, share_axis

LEFT, RIGHT, TOP, ROW, BOTTOM = 12, 12, 44, 42, 34
MAX_NAME = 34


@dataclass(frozen=True)
class Point:
    """One row of a dot plot; numbers are shares, 0..1."""

    name: str
    value: float
    low: float
    high: float
    best: bool = False


def dot_plot(points: Sequence[Point], title: str) -> str:
    """Draw each point with its interval on one scale, in the order given: -> an SVG document."""
    edges = [edge for point in points for edge in (point.low, point.high)]
    axis = share_axis(edges, LEFT + 14, WIDTH - RIGHT - 14, "")
    bottom = TOP + ROW * len(points)
    parts = [_row(point, TOP + ROW * at, axis) for at, point in enumerate(points)]
    shown = f'<text x="{LEFT}" y="22" font-weight="600">{printable(clip(title, 52))}</text>'
    return document(bottom + BOTTOM, title, f"{shown}{columns(axis, TOP, bottom)}{''.join(parts)}")


def _row(point: Point, top: int, axis: Axis) -> str:
    said = f"{point.value:.1%}, 95 % interval {point.low:.1%} to {point.high:.1%}"
    return point_row(point, top, axis, said=said, shown=f"{point.value * 100:.1f} %")


def point_row(point: Point, top: int, axis: Axis, *, said: str, shown: str) -> str:
    """Draw name and value on one line and the interval under it, so that long names have room on a phone too."""
    x, left, right = (axis.scale(value) for value in (point.value, point.low, point.high))
    return (
        f'<g class="{"best" if point.best else "row"}"><title>{printable(point.name)}: {said}</title>'
        f'<text x="{LEFT}" y="{top + 16}">{printable(clip(point.name, MAX_NAME))}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{top + 16}" text-anchor="end">{shown}{" ★" if point.best else ""}</text>'
        f'<line class="bar" x1="{left}" x2="{right}" y1="{top + 29}" y2="{top + 29}"/>'
        f'<circle class="dot" cx="{x}" cy="{top + 29}" r="5"/></g>'
    )
