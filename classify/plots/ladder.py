"""The ways to train, from the cheapest: what each gained over the best before it, and why some were left out."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from classify.plots.dots import Point
from classify.plots.gain import LEAST
from classify.plots.svg import WIDTH, Axis, Scale, clip, columns, diamond, document, printable, ticks

LEFT, RIGHT, TOP, BOTTOM = 12, 12, 62, 34
ROW, LINE = 44, 18
"""Of a rung its height, and what each line of its reason adds."""
LETTERS, LINES = 56, 2
"""Of a reason: letters that fit into a line, on a phone too, and lines; the whole of it is in the title."""


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
    reasons = [textwrap.wrap(rung.reason, LETTERS, max_lines=LINES, placeholder="…") for rung in rungs]
    *tops, bottom = accumulate((ROW + LINE * len(lines) for lines in reasons), initial=TOP)
    rows = "".join(_row(*row, axis) for row in zip(rungs, reasons, tops, strict=True))
    shown = f'<text x="{LEFT}" y="22" font-weight="600">{printable(clip(title, 60))}</text>{_legend()}'
    return document(bottom + BOTTOM, title, f"{shown}{columns(axis, TOP, bottom)}{rows}")


def _legend() -> str:
    return (
        f'<circle class="dot" cx="{LEFT + 7}" cy="42" r="5"/><text x="{LEFT + 18}" y="46">measured</text>'
        f'<g class="left-out">{diamond(LEFT + 137, 42)}<text x="{LEFT + 150}" y="46">expected, not tried</text></g>'
        f'<text x="{WIDTH - RIGHT}" y="46" text-anchor="end">★ chosen</text>'
    )


def _row(rung: Rung, reason: Sequence[str], top: int, axis: Axis) -> str:
    """Draw name and value on one line, the lines of the reason under it, and the interval under all."""
    kind = "best" if rung.taken and rung.tried else "row"
    star = " ★" if rung.taken else ""
    mark = _mark(rung.gain, top + 28 + LINE * len(reason), axis, tried=rung.tried) if rung.gain else ""
    said = (
        f'<text x="{LEFT}" y="{top + 14 + LINE * at}">{printable(line)}</text>' for at, line in enumerate(reason, 1)
    )
    left_out = "" if rung.tried else ' class="left-out"'
    return (
        f"<g{left_out}><title>{printable(_said(rung))}</title>"
        f'<text x="{LEFT}" y="{top + 14}" font-weight="600">{printable(rung.name)}{star}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{top + 14}" text-anchor="end">{printable(rung.value)}</text>'
        f'{"".join(said)}<g class="{kind}">{mark}</g></g>'
    )


def _said(rung: Rung) -> str:
    """Say all of a rung: to those who point at it, and to those who cannot see it."""
    gain = rung.gain
    if gain is None:
        return f"{rung.name}: {rung.reason}"
    what = "gained" if rung.tried else "expected to gain"
    interval = f"95 % interval {gain.low * 100:+z.1f} to {gain.high * 100:+z.1f}"
    return f"{rung.name}, {what} {gain.value * 100:+z.1f} points, {interval}: {rung.reason}"


def _mark(gain: Point, y: int, axis: Axis, *, tried: bool) -> str:
    x, left, right = (axis.scale(value) for value in (gain.value, gain.low, gain.high))
    line = "bar" if tried else "ahead dashed"
    mark = f'<circle class="dot" cx="{x}" cy="{y}" r="5"/>' if tried else diamond(x, y)
    return f'<line class="{line}" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>{mark}'
