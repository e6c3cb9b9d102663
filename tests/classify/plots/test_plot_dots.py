from xml.etree import ElementTree

import pytest

from classify.plots import Point, dot_plot
from classify.plots.svg import WIDTH

SVG = "{http://www.w3.org/2000/svg}"


def parsed(points: list[Point], title: str = "t") -> ElementTree.Element:
    return ElementTree.fromstring(dot_plot(points, title))  # noqa: S314 - ours


def labels(root: ElementTree.Element) -> dict[str, float]:
    middle = [text for text in root.iter(f"{SVG}text") if text.get("text-anchor") == "middle"]
    return {text.text: float(text.get("x")) for text in middle}


def test_a_plot_is_a_document_of_its_own_with_every_point():
    points = [Point("layer1", 0.5, 0.4, 0.6), Point("<script>&", 0.9, 0.85, 0.95, best=True)]
    root = parsed(points, 'a "title" & more')
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"layer1", "<script>&", "50.0 %", "90.0 % ★", 'a "title" & more'} <= set(texts)
    assert root.get("aria-label") == 'a "title" & more'


def test_dots_and_bars_lie_where_the_scale_says():
    root = parsed([Point("a", 0.5, 0.25, 1.0), Point("b", 0.75, 0.5, 0.8)])
    at = labels(root)
    unit = (at["100 %"] - at["20 %"]) / 0.8
    dots = [float(dot.get("cx")) for dot in root.iter(f"{SVG}circle")]
    assert dots == pytest.approx([at["20 %"] + unit * 0.3, at["20 %"] + unit * 0.55], abs=0.2)
    bars = [line for line in root.iter(f"{SVG}line") if line.get("class") == "bar"]
    ends = [(float(bar.get("x1")), float(bar.get("x2"))) for bar in bars]
    assert ends[0] == pytest.approx((at["20 %"] + unit * 0.05, at["100 %"]), abs=0.2)
    assert bars[0].get("y1") == bars[0].get("y2") != bars[1].get("y1")


def test_one_perfect_point_and_no_point_can_be_drawn():
    assert labels(parsed([Point("a", 1.0, 1.0, 1.0)]))["100 %"] < WIDTH
    assert not list(parsed([]).iter(f"{SVG}circle"))


def test_a_long_name_is_clipped_and_told_in_full():
    root = parsed([Point("features.denseblock4.denselayer16.conv2:grid:4", 0.5, 0.4, 0.6)])
    assert "features.densebl…er16.conv2:grid:4" in "".join(element.text or "" for element in root.iter(f"{SVG}text"))
    assert next(root.iter(f"{SVG}title")).text.startswith("features.denseblock4.denselayer16.conv2:grid:4: 50.0%")
