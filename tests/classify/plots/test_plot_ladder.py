import re

import pytest

from classify.plots import Point, Rung, ladder_plot

GAIN = Point("", 0.03, 0.01, 0.05)


def test_measured_gains_are_dots_and_expected_ones_are_grey_and_open():
    rungs = [Rung("linear", "91.3 %", "the probe"), Rung("tail", "+3.0", "taken", GAIN, taken=True),
             Rung("full", "+3.0", "too slow", GAIN, tried=False)]  # fmt: skip
    svg = ladder_plot(rungs, "gains")
    body = svg[svg.index("★ chosen") :]
    assert body.count("<circle") == 1
    assert body.count('class="ahead open"') == 1
    assert re.search(r'<g class="left-out"><title>full, expected to gain \+3\.0 points', body)
    assert "tail, gained +3.0 points, 95 % interval +1.0 to +5.0: taken" in body
    assert '<g class="best"><line class="bar"' in body
    assert body.count("★") == 2


@pytest.mark.parametrize("gain", [None, GAIN, Point("", -0.2, -0.3, 0.0), Point("", 0.0, 0.0, 0.0)])
def test_nothing_gained_is_always_within_the_frame(gain):
    svg = ladder_plot([Rung("tail", "", "why", gain)], "t")
    [zero] = re.findall(r'class="even" x1="([^"]+)"', svg)
    assert 0 < float(zero) < 520
    assert all(0 < float(x) < 520 for x in re.findall(r'(?:x1|x2|cx)="([^"]+)"', svg))


def test_a_long_reason_is_wrapped_and_cut_at_its_end_and_whole_in_the_title():
    reason = " ".join(f"word{at}" for at in range(40)) + " <b>"
    svg = ladder_plot([Rung("full", "", reason, tried=False), Rung("scratch", "", "short", tried=False)], "t")
    assert "<b>" not in svg
    assert f"<title>full: {reason[:-4]}" in svg
    shown = re.findall(r">(word[^<]*)</text>", svg)
    assert len(shown) == 2
    assert shown[1].endswith("…")
    assert reason.startswith(" ".join(shown)[:-1])


def test_rungs_with_longer_reasons_take_more_room():
    def height(reason: str) -> float:
        return float(re.search(r' height="([\d.]+)"', ladder_plot([Rung("full", "", reason)], "t"))[1])

    assert height("") < height("short") < height("long " * 20) == height("long " * 200)


def test_zero_is_no_gain_and_has_no_sign():
    svg = ladder_plot([Rung("tail", "", "", GAIN)], "t")
    assert ">0</text>" in svg
    assert "+0<" not in svg
