import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.plots import clip, printable
from classify.plots.svg import Axis, Scale, document, frame, share_axis, share_range, ticks

SVG = "{http://www.w3.org/2000/svg}"


def test_bytes_that_are_no_text_are_shown_and_not_written():
    assert printable("a\udcff\x00<") == "a\\udcff &lt;"


@given(st.text(max_size=40), st.integers(2, 30))
def test_a_clipped_text_keeps_its_ends(text, most):
    shown = clip(text, most)
    assert len(shown) == min(len(text), most)
    assert shown == text or text.startswith(shown.split("…")[0])
    assert clip("abcdefgh", 5) == "ab…gh"


@given(st.floats(-1e3, 1e3), st.floats(0.01, 1e3))
def test_a_scale_is_a_straight_line(low, span):
    scale = Scale(low, low + span, 300, 20)
    for part in (0, 0.25, 0.5, 1):
        assert scale(low + part * span) == pytest.approx(300 - 280 * part, abs=0.051)


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_few_round_numbers_within_the_range(low, span):
    high = low + span
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in found)
    step = found[1] - found[0]
    digit = step / 10 ** math.floor(math.log10(step * 1.0001))
    assert min(abs(digit - times) for times in (1, 2, 5)) < 1e-3


def test_ticks_of_shares():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.9, 1) == [0.9, 0.92, 0.94, 0.96, 0.98, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.42, 0.77], (0.4, 0.8)), ([1.0], (0.9, 1)), ([0.0], (0, 0.1)), ([], (0, 1)), ([0.5, 0.5], (0.4, 0.6))],
)
def test_the_range_of_shares_is_whole_tenths(values, expected):
    assert share_range(values) == pytest.approx(expected)


def test_a_frame_draws_a_line_and_a_label_for_each_tick():
    x = Axis(Scale(0, 10, 50, 450), [(0, "none"), (5, "<five>")], "images")
    y = share_axis([0.35, 0.55], 300, 40, "right")
    root = ElementTree.fromstring(document(330, "a & b", frame(x, y)))  # noqa: S314 - ours
    lines = [line.attrib for line in root.iter(f"{SVG}line")]
    up = [float(line["x1"]) for line in lines if line["x1"] == line["x2"]]
    across = [float(line["y1"]) for line in lines if line["y1"] == line["y2"]]
    assert up == [50, 250]
    assert across == pytest.approx([300, 300 - 260 / 3, 300 - 520 / 3, 40], abs=0.06)
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"none", "<five>", "images", "right", "30 %", "60 %"} <= texts
    assert root.get("aria-label") == "a & b"
