"""Are the probabilities honest: the reliability diagram; and what declining to answer brings."""

from collections.abc import Sequence
from dataclasses import dataclass

from classify.plots.svg import WIDTH, Axis, Scale, document, frame, path, share_axis, ticks

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 64, 24, 36, 56, 330


@dataclass(frozen=True)
class Bin:
    """Answers of about one confidence: its mean, the share of them that is right, and how many they are."""

    confidence: float
    accuracy: float
    count: int


def reliability_plot(before: Sequence[Bin], after: Sequence[Bin], label: str) -> str:
    """Draw the share that is right over what was promised; squares before calibration, dots after: -> SVG."""
    shares = [(tick, f"{tick * 100:g} %") for tick in ticks(0, 1)]
    x = Axis(Scale(0, 1, LEFT, WIDTH - RIGHT), shares, "probability it gave to its answer")
    y = Axis(Scale(0, 1, HEIGHT - BOTTOM, TOP), shares, "share of these answers that is right")
    even = f'<line class="even dashed" x1="{x.scale(0)}" y1="{y.scale(0)}" x2="{x.scale(1)}" y2="{y.scale(1)}"/>'
    drawn = _bins(before, x, y, "before") + _bins(after, x, y, "after")
    return document(HEIGHT, label, frame(x, y) + even + drawn + _legend(bool(before), bool(after)))


def _bins(bins: Sequence[Bin], x: Axis, y: Axis, kind: str) -> str:
    if not bins:
        return ""
    places = [(x.scale(each.confidence), y.scale(each.accuracy)) for each in bins]
    joined = f'<path class="{LINES[kind]}" d="{path(places)}"/>'
    said = (f"{each.count} images: promised {each.confidence:.1%}, right {each.accuracy:.1%} ({kind})" for each in bins)
    return joined + "".join(MARKS[kind](*place, words) for place, words in zip(places, said, strict=True))


def _square(x: float, y: float, words: str) -> str:
    corner = f'x="{x - 4.5:.1f}" y="{y - 4.5:.1f}"'
    return f'<rect class="ahead" {corner} width="9" height="9"><title>{words}</title></rect>'


def _dot(x: float, y: float, words: str) -> str:
    return f'<circle class="dot" cx="{x}" cy="{y}" r="5"><title>{words}</title></circle>'


MARKS = {"before": _square, "after": _dot}
LINES = {"before": "ahead dashed", "after": "line"}


def _legend(before: bool, after: bool) -> str:
    shown = [kind for kind, there in (("before", before), ("after", after)) if there]
    rows = enumerate(shown)
    return "".join(
        MARKS[kind](WIDTH - RIGHT - 150, HEIGHT - BOTTOM - 20 - 24 * at, kind)
        + f'<text x="{WIDTH - RIGHT - 136}" y="{HEIGHT - BOTTOM - 15 - 24 * at}">{kind} calibration</text>'
        for at, kind in rows
    )


def coverage_plot(points: Sequence[tuple[float, float]], label: str) -> str:
    """Draw the share that is right among the answers given, over the share that is answered: -> an SVG document."""
    ordered = sorted(points)
    shares = [(tick, f"{tick * 100:g} %") for tick in ticks(0, 1)]
    x = Axis(Scale(0, 1, LEFT, WIDTH - RIGHT), shares, "share of the images that it answers")
    y = share_axis([right for _, right in ordered], HEIGHT - BOTTOM, TOP, "share of its answers that is right")
    line = path([(x.scale(answered), y.scale(right)) for answered, right in ordered])
    return document(HEIGHT, label, f'{frame(x, y)}<path class="line" d="{line}"/>')
