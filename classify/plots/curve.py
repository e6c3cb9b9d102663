"""The learning curve: what was measured, the curve through it, and what more images are expected to bring."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from classify.plots.svg import WIDTH, Axis, Scale, document, frame, path, share_axis

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 64, 24, 36, 56, 330
MAX_TICKS = 6


@dataclass(frozen=True)
class Size:
    """How good it is with n training images: a share, 0..1, and its interval."""

    n: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """What was measured, samples of the fitted curve, what is predicted, and beyond which n nothing is."""

    measured: Sequence[Size]
    fitted: Sequence[Size]
    predicted: Sequence[Size]
    refused_beyond: float

    @property
    def sizes(self) -> list[Size]:
        """Everything that must fit into the frame."""
        return [*self.measured, *self.fitted, *self.predicted]


def curve_plot(curve: Curve, title: str, label: str) -> str:
    """Draw shares over n on a logarithmic scale, with a shaded end where nothing is predicted: -> an SVG document."""
    x, y = _axes(curve, title)
    parts = [_refused(curve, x, y), frame(x, y), *_fitted(curve, x, y)]
    parts += [_measured(size, x, y) for size in curve.measured]
    parts += [_predicted(size, x, y) for size in curve.predicted]
    return document(HEIGHT, label, "".join(parts))


def _axes(curve: Curve, title: str) -> tuple[Axis, Axis]:
    first, last = min(size.n for size in curve.sizes), max(curve.refused_beyond, *(size.n for size in curve.sizes))
    scale = Scale(math.log2(first) - 0.3, math.log2(last) + 0.9, LEFT, WIDTH - RIGHT)
    shown = sorted({size.n for size in (*curve.measured, *curve.predicted)}, reverse=True)
    labels = [(math.log2(n), f"{n:,.0f}") for n in shown[:: math.ceil(len(shown) / MAX_TICKS)]]
    edges = [edge for size in curve.sizes for edge in (size.low, size.high)]
    return Axis(scale, labels, "training images"), share_axis(edges, HEIGHT - BOTTOM, TOP, title)


def _fitted(curve: Curve, x: Axis, y: Axis) -> Iterator[str]:
    """Draw the band, the curve among the measured sizes, and dashed the curve beyond them."""
    if not curve.fitted:
        return
    across = [x.scale(math.log2(size.n)) for size in curve.fitted]
    highs = [(at, y.scale(size.high)) for at, size in zip(across, curve.fitted, strict=True)]
    lows = [(at, y.scale(size.low)) for at, size in zip(across, curve.fitted, strict=True)]
    middle = [(at, y.scale(size.value)) for at, size in zip(across, curve.fitted, strict=True)]
    inside = sum(size.n <= max(size.n for size in curve.measured) for size in curve.fitted)
    yield f'<path class="band" d="{path(highs + lows[::-1])}Z"/>'
    yield f'<path class="line" d="{path(middle[:inside])}"/>' if inside else ""
    yield f'<path class="ahead dashed" d="{path(middle[max(0, inside - 1) :])}"/>'


def _refused(curve: Curve, x: Axis, y: Axis) -> str:
    left, top = x.scale(math.log2(curve.refused_beyond)), y.scale.end
    height, middle = y.scale.start - top, (left + x.scale.end) / 2
    turned = f'transform="rotate(-90 {middle:.1f} {top + height / 2:.1f})" text-anchor="middle"'
    return (
        f'<rect class="refused" x="{left}" y="{top}" width="{x.scale.end - left:.1f}" height="{height}"/>'
        f'<text x="{middle:.1f}" y="{top + height / 2 + 5:.1f}" {turned}>too far to predict</text>'
    )


def _measured(size: Size, x: Axis, y: Axis) -> str:
    at = x.scale(math.log2(size.n))
    return (
        f"<g><title>{_said(size)}, measured</title>"
        f'<line class="bar" x1="{at}" x2="{at}" y1="{y.scale(size.low)}" y2="{y.scale(size.high)}"/>'
        f'<circle class="dot" cx="{at}" cy="{y.scale(size.value)}" r="5"/></g>'
    )


def _predicted(size: Size, x: Axis, y: Axis) -> str:
    """Draw an open diamond: not measured, and told apart without its colour."""
    at, middle = x.scale(math.log2(size.n)), y.scale(size.value)
    corners = path([(at, middle - 7), (at + 7, middle), (at, middle + 7), (at - 7, middle)])
    return (
        f'<g><title>{_said(size)}, predicted</title><line class="ahead dashed" x1="{at}" x2="{at}" '
        f'y1="{y.scale(size.low)}" y2="{y.scale(size.high)}"/><path class="ahead open" d="{corners}Z"/></g>'
    )


def _said(size: Size) -> str:
    return f"{size.n:,.0f} images: {size.value:.1%}, 95 % interval {size.low:.1%} to {size.high:.1%}"
