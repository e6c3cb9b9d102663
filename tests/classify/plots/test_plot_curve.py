import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from classify.plots import Curve, Size, curve_plot

SVG = "{http://www.w3.org/2000/svg}"


def size(n: float, value: float, half: float = 0.02) -> Size:
    return Size(n, value, value - half, value + half)


CURVE = Curve(
    measured=[size(n, 1 - 2 / math.sqrt(n)) for n in (100, 200, 400, 800)],
    fitted=[size(100 * 2 ** (at / 2), 1 - 2 / math.sqrt(100 * 2 ** (at / 2)), 0.03) for at in range(11)],
    predicted=[size(n, 1 - 2 / math.sqrt(n)) for n in (1600, 3200)],
    refused_beyond=3200,
)


def parsed(curve: Curve) -> ElementTree.Element:
    return ElementTree.fromstring(curve_plot(curve, "accuracy", "the curve"))  # noqa: S314 - ours


def shares(root: ElementTree.Element) -> dict[float, float]:
    """Where each labelled share lies."""
    texts = [text for text in root.iter(f"{SVG}text") if text.get("text-anchor") == "end"]
    return {float(text.text.removesuffix(" %")) / 100: float(text.get("y")) - 4 for text in texts}


def numbers(root: ElementTree.Element) -> dict[float, float]:
    texts = [text for text in root.iter(f"{SVG}text") if text.get("text-anchor") == "middle"]
    return {float(t.text.replace(",", "")): float(t.get("x")) for t in texts if t.text.replace(",", "").isdigit()}


def place(root: ElementTree.Element, share: float) -> float:
    known = sorted(shares(root).items())
    (low, bottom), (high, top) = known[0], known[-1]
    return bottom + (top - bottom) * (share - low) / (high - low)


def corners(path: ElementTree.Element) -> list[tuple[float, ...]]:
    return [tuple(map(float, pair.split())) for pair in path.get("d").strip("MZ").split("L")]


def test_measured_sizes_are_dots_with_intervals_at_equal_steps_of_doubling():
    root = parsed(CURVE)
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in root.iter(f"{SVG}circle")]
    assert [y for _, y in dots] == pytest.approx([place(root, each.value) for each in CURVE.measured], abs=0.2)
    steps = [after - before for (before, _), (after, _) in pairwise(dots)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    bars = [line for line in root.iter(f"{SVG}line") if line.get("class") == "bar"]
    ends = [(float(bar.get("y1")), float(bar.get("y2"))) for bar in bars]
    for found, each in zip(ends, CURVE.measured, strict=True):
        assert found == pytest.approx((place(root, each.low), place(root, each.high)), abs=0.2)
    assert numbers(root)[100] == dots[0][0]
    assert set(numbers(root)) == {100, 200, 400, 800, 1600, 3200}


def test_predictions_are_open_diamonds_and_the_rest_is_refused():
    root = parsed(CURVE)
    diamonds = [corners(path) for path in root.iter(f"{SVG}path") if path.get("class") == "ahead open"]
    for diamond, each in zip(diamonds, CURVE.predicted, strict=True):
        xs, ys = zip(*diamond, strict=True)
        assert (min(xs) + max(xs)) / 2 == pytest.approx(numbers(root)[each.n], abs=0.1)
        assert (min(ys) + max(ys)) / 2 == pytest.approx(place(root, each.value), abs=0.2)
    (refused,) = root.iter(f"{SVG}rect")
    assert float(refused.get("x")) == numbers(root)[3200]


def test_the_curve_is_solid_among_the_measured_sizes_and_dashed_beyond():
    root = parsed(CURVE)
    kinds = {path.get("class"): corners(path) for path in root.iter(f"{SVG}path")}
    assert kinds["line"][-1][0] == numbers(root)[800] == kinds["ahead dashed"][0][0]
    assert kinds["ahead dashed"][-1][0] == numbers(root)[3200]
    assert len(kinds["band"]) == 2 * len(CURVE.fitted)
    over, under = kinds["band"][0], kinds["band"][-1]
    assert (over[1], under[1]) == pytest.approx(
        (place(root, CURVE.fitted[0].high), place(root, CURVE.fitted[0].low)), abs=0.2
    )


def test_sizes_without_a_curve_can_be_drawn():
    root = parsed(Curve([size(100, 0.5)], [], [], 100))
    assert not list(root.iter(f"{SVG}path"))
    assert len(list(root.iter(f"{SVG}circle"))) == 1
