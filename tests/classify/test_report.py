import re
from html.parser import HTMLParser

import numpy as np
import pytest
from tiny_features import blobs

import classify.fit as module
from classify.fit import FitSpec, fit

VOID = {"meta", "line", "circle", "br"}


class Tags(HTMLParser):
    """Every tag that a browser would see, and whether they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page(monkeypatch, make_features, tmp_path):
    def render(names, **known):
        rng = np.random.default_rng(0)
        labels = np.arange(40 * len(names)) % len(names)
        labels = np.where(rng.random(len(labels)) < 0.1, rng.integers(0, len(names), len(labels)), labels)
        X = {"penultimate": blobs(np.arange(len(labels)) % len(names), 6)}
        features = make_features(labels, names, X=X, **known)
        monkeypatch.setattr(module, "open_features", lambda name, cache: features)
        metrics = fit(FitSpec("tiny", out=tmp_path / "run", jobs=1, cv=3, head="centroid"))
        return metrics, (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    return render


def test_the_page_says_the_verdict_and_closes_every_tag(page):
    metrics, html = page(["ant", "bee", "wasp"])
    tags = Tags()
    tags.feed(html)
    assert not tags.open
    accuracy = metrics["test"]["accuracy"]
    for number in (accuracy["value"], accuracy["low"], accuracy["high"]):
        assert f"{number * 100:.1f} %" in html
    for words in (metrics["features_key"], metrics["split"], "Worst errors", "Everything tried", "<svg"):
        assert words in html
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)


def test_names_are_text_and_nothing_else(page):
    evil = "</td><script>alert(1)</script>"
    ids = [f'"><img src=x onerror=alert({row})>\udcff\x1b' for row in range(80)]
    _, html = page([evil, "b' onload='x"], ids=ids, name=f"{evil}/0123")
    tags = Tags()
    tags.feed(html)
    assert not {"script", "img"} & set(tags.seen)
    assert "&lt;script&gt;" in html
    assert "\x1b" not in html


def test_many_classes_get_a_list_of_confusions(page):
    metrics, html = page([f"class {number:02d}" for number in range(26)])
    assert "Most frequent confusions" in html
    counts = np.array(metrics["confusion"]["counts"])
    assert f"of {np.count_nonzero(counts) - np.count_nonzero(counts.diagonal())} pairs" in html
