import re

import pytest

from classify.plots.svg import CHART_STYLE, STYLE
from classify.report.page import DARK, LIGHT, MAX_SHADE, POLICY, page, style

TEXT, GRAPHIC = 4.5, 3.0
"""The least contrast that WCAG 2.2 asks for: of text (1.4.3), of lines and marks (1.4.11)."""
PAIRS = [("ink", "back"), ("soft", "back"), ("ink", "card"), ("soft", "card"), ("mark", "back"), ("mark", "card"),
         ("warn-ink", "warn")]  # fmt: skip
THEMES = {"light": LIGHT, "dark": DARK}


def rgb(colour: str) -> tuple[float, ...]:
    if colour.startswith("#"):
        return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return tuple(float(part) for part in colour.split(","))


def luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 12.92 if (c := part / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_measure_of_contrast_is_that_of_the_standard():
    assert contrast(rgb("#000000"), rgb("#ffffff")) == pytest.approx(21)
    assert contrast(rgb("#767676"), rgb("#ffffff")) == pytest.approx(4.54, abs=0.005)


def variables(css: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+):([^;}]+)", css))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("front", "back"), PAIRS)
def test_text_stands_out_from_what_is_behind_it(theme, front, back):
    css = style()
    light, dark = css.split("@media screen and (prefers-color-scheme:dark)")[:2]
    used = variables(light if theme == "light" else dark[: dark.index("}}")])
    assert used == THEMES[theme]
    assert contrast(rgb(used[front]), rgb(used[back])) >= TEXT


@pytest.mark.parametrize("theme", THEMES)
def test_a_number_stands_out_from_the_darkest_shade(theme):
    colours = THEMES[theme]
    shades = [MAX_SHADE * part / 10 for part in range(11)]
    for alpha in shades:
        mixed = [alpha * s + (1 - alpha) * b for s, b in zip(rgb(colours["shade"]), rgb(colours["back"]), strict=True)]
        assert contrast(rgb(colours["ink"]), tuple(mixed)) >= TEXT


@pytest.mark.parametrize("theme", THEMES)
def test_the_marks_of_charts_stand_out(theme):
    found = [css.split("@media screen and (prefers-color-scheme:dark)") for css in (STYLE, CHART_STYLE)]
    marks, lines = (set(re.findall(r"(?:stroke|fill):(#[0-9a-f]{6})", css[theme == "dark"])) for css in found)
    assert len(marks) == 2
    assert lines == marks
    assert all(contrast(rgb(mark), rgb(THEMES[theme]["back"])) >= GRAPHIC for mark in marks)


def test_paper_is_never_dark():
    assert "@media screen and (prefers-color-scheme:dark)" in style()
    assert style().count("prefers-color-scheme") == style().count("screen and (prefers-color-scheme")
    assert STYLE.count("prefers-color-scheme") == STYLE.count("screen and (prefers-color-scheme")


def test_every_variable_that_is_used_is_there_in_both_themes():
    shown = page("t", "", []) + "rgba(var(--shade),1)"
    assert set(re.findall(r"var\(--([\w-]+)\)", shown)) == set(LIGHT) == set(DARK)


def test_the_policy_allows_nothing_but_styles_and_pictures_of_the_page_itself():
    assert POLICY == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    shown = page("t", "", [])
    assert shown.index("Content-Security-Policy") < shown.index("<style>")
    assert POLICY in shown
