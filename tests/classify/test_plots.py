from xml.etree import ElementTree

from classify.plots import Point, dot_plot, printable


def test_a_plot_is_a_document_of_its_own_with_every_point():
    points = [Point("layer1", 0.5, 0.4, 0.6), Point("<script>&", 0.9, 0.85, 0.95, best=True)]
    root = ElementTree.fromstring(dot_plot(points, 'a "title" & more'))  # noqa: S314 - ours
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"layer1", "<script>&", "50.0 %", "90.0 % ★", 'a "title" & more'} <= set(texts)
    circles = [float(element.get("cx")) for element in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert circles[0] < circles[1]


def test_intervals_lie_on_the_scale():
    root = ElementTree.fromstring(dot_plot([Point("a", 0.5, 0.25, 1.0)], "t"))  # noqa: S314 - ours
    svg = "{http://www.w3.org/2000/svg}"
    (bar,) = [line for line in root.iter(f"{svg}line") if line.get("class") == "bar"]
    ticks = {text.text: float(text.get("x")) for text in root.iter(f"{svg}text") if text.get("text-anchor") == "middle"}
    assert float(bar.get("x2")) == ticks["100 %"]
    assert ticks["20 %"] < float(bar.get("x1")) < ticks["30 %"]


def test_one_perfect_point_and_no_point_can_be_drawn():
    ElementTree.fromstring(dot_plot([Point("a", 1.0, 1.0, 1.0)], "t"))  # noqa: S314 - ours
    ElementTree.fromstring(dot_plot([], "t"))  # noqa: S314 - ours


def test_bytes_that_are_no_text_are_shown_and_not_written():
    assert printable("a\udcff\x00<") == "a\\udcff &lt;"
