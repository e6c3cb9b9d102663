import re

import pytest

from classify.plots import Point, gain_plot


def places(svg: str) -> list[float]:
    return [float(x) for x in re.findall(r'class="dot" cx="([^"]+)"', svg)]


def zero(svg: str) -> float:
    [x] = re.findall(r'class="even" x1="([^"]+)"', svg)
    return float(x)


def test_gains_lie_right_of_zero_and_losses_left():
    svg = gain_plot([Point("test", 0.05, 0.01, 0.09), Point("held out", -0.02, -0.06, 0.02)], "gain")
    gained, lost = places(svg)
    assert lost < zero(svg) < gained
    assert "+5.0 points, 95 % interval +1.0 to +9.0" in svg


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_zero_is_always_within_the_frame(value):
    svg = gain_plot([Point("a", value, value, value)], "gain")
    assert 0 < zero(svg) < 520
    assert all(0 < x < 520 for x in places(svg))


def test_names_are_escaped():
    assert "<b>" not in gain_plot([Point("<b>", 0.0, 0.0, 0.0)], "<b>")
