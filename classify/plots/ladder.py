"""The ways to train, from the cheapest: what each gained over the best before it, and why some were left out."""

from collections.abc import Sequence
from dataclasses import dataclass

from classify.plots.dots import Point
from classify.plots.gain import LEAST
from classify.plots.svg import WIDTH, Axis, Scale, clip, columns, diamond, document, printable, ticks

LEFT, RIGHT, TOP, ROW, BOTTOM = 12, 12, 62, 58, 34
MAX_REASON = 56
"""Letters of a reason that fit into a line, on a phone too; the whole of it is in the title."""


@dataclass(frozen=True)
class Rung:
    """One way to train: its gain, a difference of shares, as measured or as it was expected, or None of either.

    `value` is what its line ends with; `taken` marks the one that was chosen.
    """

    name: str
    value: str
    reason: str
    gain: Point | None = None
    tried: bool = True
    taken: bool = False


def ladder_plot(rungs: Sequence[Rung], title: str) -> str:
    """Draw the rungs in the order given; what was not tried is grey, its expected gain dashed: -> an SVG document."""
    edges = [edge for rung in rungs if rung.gain for edge in (rung.gain.low, rung.gain.high)]
    low, high = min(-LEAST, *edges, 0), max(LEAST, *edges, 0)
    labels = [(tick, f"{tick * 100:+g}" if tick else "0") for tick in ticks(low, high)]
    axis = Axis(Scale(low, high, LEFT + 24, WIDTH - RIGHT - 24), labels, "")
    bottom = TOP + ROW * len(rungs)
    rows = "".join(_row(rung, TOP + ROW * at, axis) for at, rung in enumerate(rungs))
    shown = f'<text x="{LEFT}" y="22" font-weight="600">{printable(clip(title, 60))}</text>{_legend()}'
    return document(bottom + BOTTOM, title, f"{shown}{columns(axis, TOP, bottom)}{rows}")


def _legend() -> str:
    return (
        f'<circle class="dot" cx="{LEFT + 7}" cy="42" r="5"/><text x="{LEFT + 18}" y="46">measured</text>'
        f'<g class="left-out">{diamond(LEFT + 137, 42)}<text x="{LEFT + 150}" y="46">expected, not tried</text></g>'
        f'<text x="{WIDTH - RIGHT}" y="46" text-anchor="end">★ chosen</text>'
    )


def _row(rung: Rung, top: int, axis: Axis) -> str:
    """Draw name and value on one line, the reason under it, and the interval under both."""
    kind = "best" if rung.taken and rung.tried else "row"
    star = " ★" if rung.taken else ""
    mark = _mark(rung.gain, top + 44, axis, tried=rung.tried) if rung.gain else ""
    left_out = "" if rung.tried else ' class="left-out"'
    return (
        f"<g{left_out}><title>{printable(_said(rung))}</title>"
        f'<text x="{LEFT}" y="{top + 14}" font-weight="600">{printable(rung.name)}{star}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{top + 14}" text-anchor="end">{printable(rung.value)}</text>'
        f'<text x="{LEFT}" y="{top + 31}">{printable(_beginning(rung.reason))}</text>'
        f'<g class="{kind}">{mark}</g></g>'
    )


def _beginning(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON else f"{reason[: MAX_REASON - 1].rstrip()}…"


def _said(rung: Rung) -> str:
    """Say all of a rung: to those who point at it, and to those who cannot see it."""
    gain = rung.gain
    if gain is None:
        return f"{rung.name}: {rung.reason}"
    what = "gained" if rung.tried else "expected to gain"
    interval = f"95 % interval {gain.low * 100:+.1f} to {gain.high * 100:+.1f}"
    return f"{rung.name}, {what} {gain.value * 100:+.1f} points, {interval}: {rung.reason}"


def _mark(gain: Point, y: int, axis: Axis, *, tried: bool) -> str:
    x, left, right = (axis.scale(value) for value in (gain.value, gain.low, gain.high))
    line = "bar" if tried else "ahead dashed"
    mark = f'<circle class="dot" cx="{x}" cy="{y}" r="5"/>' if tried else diamond(x, y)
    return f'<line class="{line}" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>{mark}'
