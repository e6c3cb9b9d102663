from xml.etree import ElementTree

import pytest

from classify.plots import Bin, coverage_plot, reliability_plot
from classify.plots.svg import WIDTH
from classify.plots.trust import BOTTOM, HEIGHT, LEFT, RIGHT, TOP

SVG = "{http://www.w3.org/2000/svg}"
BEFORE = [Bin(0.5, 0.3, 10), Bin(0.9, 0.7, 10)]
AFTER = [Bin(0.4, 0.35, 10), Bin(0.8, 0.75, 10)]


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314 - ours


def place(confidence: float, accuracy: float) -> tuple[float, float]:
    return LEFT + (WIDTH - RIGHT - LEFT) * confidence, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * accuracy


def test_bins_lie_at_what_was_promised_and_what_came_true():
    root = parsed(reliability_plot(BEFORE, AFTER, "r"))
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in root.iter(f"{SVG}circle")]
    squares = [(float(at.get("x")) + 4.5, float(at.get("y")) + 4.5) for at in root.iter(f"{SVG}rect")]
    for found, bins in ((dots, AFTER), (squares, BEFORE)):
        for where, each in zip(found[: len(bins)], bins, strict=True):
            assert where == pytest.approx(place(each.confidence, each.accuracy), abs=0.15)
    (even,) = [line for line in root.iter(f"{SVG}line") if line.get("class") == "even dashed"]
    assert (float(even.get("x1")), float(even.get("y1"))) == place(0, 0)
    assert (float(even.get("x2")), float(even.get("y2"))) == place(1, 1)
    assert "10 images: promised 40.0%, right 35.0% (after)" in {title.text for title in root.iter(f"{SVG}title")}


def test_only_what_is_there_is_explained():
    texts = [text.text for text in parsed(reliability_plot([], AFTER, "r")).iter(f"{SVG}text")]
    assert "after calibration" in texts
    assert "before calibration" not in texts


def test_coverage_runs_from_the_surest_to_all():
    root = parsed(coverage_plot([(1.0, 0.9), (0.5, 1.0)], "c"))
    (line,) = root.iter(f"{SVG}path")
    start, end = [tuple(map(float, pair.split())) for pair in line.get("d").strip("M").split("L")]
    assert start == pytest.approx((place(0.5, 0)[0], TOP), abs=0.1)
    assert end == pytest.approx((place(1, 0)[0], place(0, 0.5)[1]), abs=0.1)  # 0.9 on an axis from 0.8 to 1
