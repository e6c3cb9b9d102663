import re

import pytest

from classify.plots import Layer, Point, depth_plot


def layers(n: int = 4) -> list[Layer]:
    """Learned weights that rise to the end, random ones that do not."""
    return [
        Layer(Point(f"layer{at}", 0.4 + 0.1 * at, 0.38 + 0.1 * at, 0.42 + 0.1 * at), Point("", 0.3, 0.28, 0.32))
        for at in range(n)
    ]


def test_both_networks_have_a_mark_a_line_and_an_interval_at_every_layer():
    svg = depth_plot(layers(), "layer by layer")
    assert svg.count('<line class="bar"') == svg.count('<line class="ahead"') == 4
    assert svg.count('class="dot"') == svg.count('class="ahead open"') == 5  # one more of each in the legend
    assert svg.count('<path class="line"') == svg.count('<path class="ahead dashed"') == 1
    assert "layer2, what was learned: 60.0%, 95 % interval 58.0% to 62.0%" in svg


def test_better_lies_further_right_and_deeper_further_down():
    [line] = re.findall(r'<path class="line" d="M([^"]*)"', depth_plot(layers(), "t"))
    places = [tuple(map(float, place.split())) for place in line.split("L")]
    assert places == sorted(places)
    assert [y for _, y in places] == sorted({y for _, y in places})


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_every_mark_lies_beside_the_names_and_within_the_frame(value):
    svg = depth_plot([Layer(Point("a", value, 0.0, 1.0), Point("a", 1 - value, 0.0, 1.0))], "t")
    body = svg[svg.index("random weights</text>") :]
    xs = [float(x) for x in re.findall(r'(?:x1|x2|cx)="([^"]+)"', body)]
    assert all(140 < x < 520 for x in xs)


def test_the_peak_has_a_star_and_names_are_escaped_and_clipped():
    point = Point("<b>" + "features.denseblock4" * 9, 0.5, 0.4, 0.6)
    svg = depth_plot([Layer(point, point, peak=True)], "<i>")
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert svg.count("★") == 2
    assert re.search(r">&lt;b&gt;[^<]{1,14} ★</text>", svg)
