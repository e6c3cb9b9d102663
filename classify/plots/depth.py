"""Layer by layer, what a network has learned against random weights: two values with their intervals a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from classify.plots.dots import Point
from classify.plots.svg import WIDTH, Axis, clip, columns, diamond, document, path, printable, share_axis

LEFT, RIGHT, TOP, ROW, BOTTOM = 12, 12, 62, 40, 34
NAME, MAX_NAME = 140, 14
"""Of the column of names: its width, and the letters that fit into it on a phone too."""
APART = 7
"""Between the two of a row, so that their intervals do not cover each other."""


@dataclass(frozen=True)
class Layer:
    """One layer: shares, 0..1, with the learned weights and with random ones; the `peak` has a star."""

    learned: Point
    random: Point
    peak: bool = False


def depth_plot(layers: Sequence[Layer], title: str) -> str:
    """Draw the layers from shallow (top) to deep, the learned weights joined by a line: -> an SVG document."""
    edges = [edge for layer in layers for point in (layer.learned, layer.random) for edge in (point.low, point.high)]
    axis = share_axis(edges, LEFT + NAME, WIDTH - RIGHT - 18, "")
    middles = [TOP + ROW * at + ROW // 2 for at in range(len(layers))]
    learned = [(axis.scale(layer.learned.value), y - APART) for layer, y in zip(layers, middles, strict=True)]
    drawn = [(axis.scale(layer.random.value), y + APART) for layer, y in zip(layers, middles, strict=True)]
    lines = f'<path class="line" d="{path(learned)}"/><path class="ahead dashed" d="{path(drawn)}"/>'
    rows = "".join(_row(layer, y, axis) for layer, y in zip(layers, middles, strict=True))
    bottom = TOP + ROW * len(layers)
    shown = f'<text x="{LEFT}" y="22" font-weight="600">{printable(clip(title, 52))}</text>'
    return document(bottom + BOTTOM, title, f"{shown}{_legend()}{columns(axis, TOP, bottom)}{lines}{rows}")


def _legend() -> str:
    return (
        f'<circle class="dot" cx="{LEFT + 7}" cy="42" r="5"/><text x="{LEFT + 18}" y="46">what was learned</text>'
        f'{diamond(LEFT + NAME + 67, 42)}<text x="{LEFT + NAME + 80}" y="46">random weights</text>'
        f'<text x="{WIDTH - RIGHT}" y="46" text-anchor="end">★ peak</text>'
    )


def _row(layer: Layer, y: int, axis: Axis) -> str:
    name = layer.learned.name
    star = " ★" if layer.peak else ""
    marks = (
        _mark(layer.learned, y - APART, axis, ("what was learned", 'class="bar"', _dot)),
        _mark(layer.random, y + APART, axis, ("random weights", 'class="ahead"', diamond)),
    )
    return f'<text x="{LEFT}" y="{y + 4}">{printable(clip(name, MAX_NAME))}{star}</text>{"".join(marks)}'


def _mark(point: Point, y: float, axis: Axis, kind: tuple[str, str, Callable[[float, float], str]]) -> str:
    """Draw a value with its interval; `kind` is what it is of, the class of its line, and how it is drawn."""
    of, line, draw = kind
    x, left, right = (axis.scale(value) for value in (point.value, point.low, point.high))
    said = f"{point.value:.1%}, 95 % interval {point.low:.1%} to {point.high:.1%}"
    return (
        f"<g><title>{printable(point.name)}, {of}: {said}</title>"
        f'<line {line} x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>{draw(x, y)}</g>'
    )


def _dot(x: float, y: float) -> str:
    return f'<circle class="dot" cx="{x}" cy="{y}" r="5"/>'
