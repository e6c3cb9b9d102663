"""The report in a real browser, headless: it fits on phones, prints, is dark where asked, and loads nothing."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import sample_advice
import sample_report as sample
from PIL import Image

from classify.advise.words import with_words
from classify.report import render, wanted_thumbnails

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]

LONG = "a_very_long_name_without_any_place_to_break_it_" * 4
PROBE = """<!doctype html><html><body style="margin:0"><iframe id="page" srcdoc="{page}"
style="border:0;width:{width}px;height:800px;color-scheme:{theme}"></iframe><pre id="found"></pre><script>
document.getElementById("page").onload = (event) => {{
  const view = event.target.contentWindow, page = view.document, root = page.documentElement;
  page.querySelectorAll("details").forEach((each) => each.open = true);
  const outside = [...page.body.querySelectorAll("*")].filter((each) => !each.closest(".wide table, svg, details")
    && each.getBoundingClientRect().right > root.clientWidth + 1);
  const pictures = [...page.images];
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.clientWidth, needed: root.scrollWidth, outside: outside.map((each) => each.outerHTML.slice(0, 120)),
    pictures: pictures.length, shown: pictures.filter((each) => each.naturalWidth > 0).length,
    loaded: view.performance.getEntriesByType("resource").map((each) => each.name)
      .filter((name) => !name.startsWith("data:")),
    small: [...page.querySelectorAll("svg text")].map((each) => parseFloat(view.getComputedStyle(each).fontSize)
      * each.ownerSVGElement.getBoundingClientRect().width / each.ownerSVGElement.viewBox.baseVal.width)
      .reduce((a, b) => Math.min(a, b), 99),
    back: view.getComputedStyle(page.body).backgroundColor,
  }});
}};
</script></body></html>"""


@pytest.fixture(scope="module")
def page() -> str:
    predictions, findings = sample.predictions(), sample.findings()
    thumbnails = sample.thumbnails(wanted_thumbnails(predictions, findings))
    metrics = sample.metrics() | {"advice": with_words(sample_advice.advice(strategy="lp-ft"))}
    return render(metrics, predictions, findings, thumbnails)


def browse(folder: Path, *options: str) -> str:
    """Start Chromium on one page and return what it writes."""
    assert CHROMIUM is not None
    fixed = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"]
    # Chromium's own sandbox refuses to start as root, as in containers; the page is ours.
    rooted = ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [CHROMIUM, *fixed, *rooted, f"--user-data-dir={folder / 'profile'}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def probe(folder: Path, page: str, width: int, theme: str = "light") -> dict:
    """Load the page in a frame of some width, and measure it from outside: the page itself runs no script."""
    path = folder / "probe.html"
    path.write_text(PROBE.format(page=html.escape(page), width=width, theme=theme), encoding="utf-8")
    written = browse(folder, "--virtual-time-budget=5000", "--window-size=1400,900", "--dump-dom", path.as_uri())
    found = re.search(r'<pre id="found">(\{.*?\})</pre>', written, re.DOTALL)
    assert found, "the page was not measured"
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen_and_letters_can_be_read(page, tmp_path, width):
    found = probe(tmp_path, page, width)
    assert found["width"] == width
    assert found["needed"] <= width, found["outside"]
    assert found["outside"] == []
    assert found["small"] >= 10


def test_names_without_end_and_older_runs_fit_on_a_phone(tmp_path):
    metrics = sample.metrics() | {"features": LONG, "warnings": [LONG], "notes": [LONG], "command": [LONG]}
    metrics |= {"per_class": [row | {"class": LONG} for row in metrics["per_class"]], "layers": [LONG]}
    findings = {name: [{key: LONG if isinstance(value, str) else value for key, value in row.items()} for row in rows]
                for name, rows in sample.findings().items()}  # fmt: skip
    predictions = [row | {"id": LONG, "label": LONG} for row in sample.predictions()]
    assert probe(tmp_path, render(metrics, predictions, findings), 360)["outside"] == []
    assert (
        probe(tmp_path, render(metrics | {"advice": sample_advice.without_end(LONG)}, predictions), 360)["outside"]
        == []
    )
    assert probe(tmp_path, render(sample.old_metrics(), predictions), 360)["outside"] == []
    assert probe(tmp_path, render(sample.multi_metrics(), sample.multi_predictions()), 360)["outside"] == []


def test_every_picture_is_shown_and_nothing_is_loaded(page, tmp_path):
    found = probe(tmp_path, page, 1280)
    assert found["shown"] == found["pictures"] > 20
    assert found["loaded"] == []


def screenshot(folder: Path, page: str, *options: str) -> np.ndarray:
    """Photograph the page: -> (h, w, 3) uint8."""
    path, picture = folder / "report.html", folder / "report.png"
    path.write_text(page, encoding="utf-8")
    browse(folder, f"--screenshot={picture}", "--window-size=1280,800", *options, path.as_uri())
    return np.asarray(Image.open(picture).convert("RGB"))


def test_it_is_light_and_dark_as_the_reader_likes(page, tmp_path):
    light = screenshot(tmp_path, page, "--blink-settings=preferredColorScheme=1")
    dark = screenshot(tmp_path, page, "--blink-settings=preferredColorScheme=0")
    assert light.shape == dark.shape == (800, 1280, 3)
    for picture in (light, dark):
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert np.median(light) > 240
    assert np.median(dark) < 40


def pages_of_pdf(folder: Path, page: str) -> int:
    path, pdf = folder / "report.html", folder / "report.pdf"
    path.write_text(page, encoding="utf-8")
    browse(folder, f"--print-to-pdf={pdf}", "--no-pdf-header-footer", path.as_uri())
    written = pdf.read_bytes()
    assert written.startswith(b"%PDF")
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", written))


def test_paper_shows_what_the_screen_folds_away(page, tmp_path):
    metrics = sample.metrics()
    long = render(metrics | {"search": metrics["search"] * 10}, sample.predictions())
    short = render(metrics | {"search": metrics["search"][-1:]}, sample.predictions())
    assert pages_of_pdf(tmp_path, long) >= pages_of_pdf(tmp_path, short) + 3
