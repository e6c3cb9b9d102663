import re
from itertools import pairwise

import pytest
import sample_report as sample
from hypothesis import given, settings
from hypothesis import strategies as st
from page_tags import Tags

from classify.report import render, wanted_thumbnails

TITLES = [
    "Layer by layer",
    "Would more images help?",
    "What is taken for what",
    "Measures, and class by class",
    "Are its probabilities honest?",
    "Worst errors",
    "What to look at in the data",
    "Everything tried",
    "To do it again",
]
METRICS, PREDICTIONS, FINDINGS = sample.metrics(), sample.predictions(), sample.findings()


def full_page() -> str:
    thumbnails = sample.thumbnails(wanted_thumbnails(PREDICTIONS, FINDINGS))
    return render(METRICS, PREDICTIONS, FINDINGS, thumbnails)


def test_the_page_holds_every_part_in_its_order_and_closes_every_tag():
    page = full_page()
    tags = Tags(page)
    assert re.findall(r'-title">([^<]*)</h2>', page) == TITLES
    for words in (
        "How sure is that?",
        "What to do next",
        "Suspect labels: 31",
        "Near-duplicates: 14 pairs",
        "Outliers: 5",
    ):
        assert words in tags.text
    accuracy = METRICS["test"]["accuracy"]
    for number in (accuracy["value"], accuracy["low"], accuracy["high"]):
        assert f"{number * 100:.1f} %" in tags.text
    assert METRICS["features_key"] in tags.text


def test_headings_go_down_one_step_at_a_time():
    levels = [int(tag[1]) for tag, _ in Tags(full_page()).seen if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_picture_has_words():
    tags = Tags(full_page())
    assert tags.all("img")
    assert all(image["alt"] for image in tags.all("img"))
    assert all(svg["aria-label"] and svg["role"] == "img" for svg in tags.all("svg"))
    assert len(tags.all("svg")) == 5


def test_links_lead_to_places_on_the_page_and_nothing_is_loaded():
    page = full_page()
    tags = Tags(page)
    places = {attrs["id"] for _, attrs in tags.seen if "id" in attrs}
    assert len(places) == sum("id" in attrs for _, attrs in tags.seen)
    assert {link["href"] for link in tags.all("a")} <= {f"#{place}" for place in places}
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in tags.all("img"))
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in tags.seen}
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", page)


def test_names_are_text_and_nothing_else():
    evil = "</td></style><script>alert(1)</script>\x1b\udcff"
    id_ = "\"><img src=x onerror=alert(1)>\udcff'"
    metrics = METRICS | dict.fromkeys(("features", "features_key", "head", "run", "metric", "protocol", "split"), evil)
    metrics |= {"classes": [evil], "layers": [evil], "params": {evil: evil}, "warnings": [evil], "notes": [evil]}
    metrics |= {"versions": {evil: evil}, "command": [evil], "transform": evil}
    metrics["confusion"] = {"true": [evil, "b"], "predicted": [evil, "b"], "counts": [[3, 1], [2, 4]]}
    metrics["per_class"] = [dict(METRICS["per_class"][0], **{"class": evil})]
    metrics["search"] = metrics["per_layer"] = [dict(METRICS["search"][0], layer=evil, layers=[evil], stage=evil)]
    metrics["selection"] = METRICS["selection"] | {"rule": evil, "metric": evil}
    metrics["grouping"] = METRICS["grouping"] | {"words": evil}
    metrics["hygiene"] = {name: part | {"words": evil} for name, part in METRICS["hygiene"].items()}
    metrics["learning_curve"] = METRICS["learning_curve"] | {"words": evil, "metric": evil, "verdict": evil}
    findings = {name: [_evil(row, evil) for row in rows] for name, rows in FINDINGS.items()}
    predictions = [row | {"id": id_, "label": evil} for row in PREDICTIONS]
    page = render(metrics, predictions, findings, {id_: "data:image/svg+xml;base64,PHN2Zz4=", evil: "x"})
    tags = Tags(page)
    assert not {"script", "img"} & {tag for tag, _ in tags.seen}
    assert not [name for _, attrs in tags.seen for name in attrs if name.startswith("on")]
    assert "\x1b" not in page
    page.encode("utf-8")


def _evil(row: dict, evil: str) -> dict:
    return {name: evil if isinstance(value, str) else value for name, value in row.items()}


def test_a_run_of_an_older_version_is_shown_as_far_as_it_goes():
    page = render(sample.old_metrics(), PREDICTIONS)
    text = Tags(page).text
    assert "Would more images help?" not in text
    assert "How it was chosen" not in text
    for words in ("Layer by layer", "Worst errors", "Everything tried", "★"):
        assert words in text
    assert "reliability diagram" in page


def test_several_labels_an_image_are_led_by_the_average_precision():
    text = Tags(render(sample.multi_metrics(), sample.multi_predictions())).text
    assert "flowers: 78.0 % mean average precision" in text
    assert "A ranking by chance would reach 21.0 %." in text
    assert "corrected for having been chosen it is 77.0 % (75.0 % to 79.0 %)" in text
    assert "What is taken for what" not in text
    assert "named from" in text
    assert "a temperature for each class" in text
    assert "named daisy, iris, tulip" in text
    assert "90.0 % sure" in text


def test_a_published_protocol_leads_with_its_metric_and_shows_what_it_tried():
    text = Tags(render(sample.protocol_metrics(), PREDICTIONS)).text
    assert f"flowers: {METRICS['test']['balanced_accuracy']['value'] * 100:.1f} % right, class by class" in text
    assert "by the protocol kornblith (Kornblith et al. 2019)" in text
    assert "6 settings" in text
    assert "C = 0.001" in text
    assert "To use it" not in text
    assert "Layer by layer" not in text


@settings(max_examples=60)
@given(st.data())
def test_whatever_a_run_does_not_hold_is_left_out(data):
    def thinned(found: dict, depth: int) -> dict:
        fates = data.draw(st.lists(st.sampled_from("kkknx"), min_size=len(found), max_size=len(found)))
        kept = {}
        for fate, (name, value) in zip(fates, found.items(), strict=True):
            if fate == "n":
                kept[name] = None
            if fate == "k":
                deeper = depth and isinstance(value, dict) and name not in WHOLE
                kept[name] = thinned(value, depth - 1) if deeper else value
        return kept

    Tags(render(thinned(METRICS, 2), data.draw(st.sampled_from([[], PREDICTIONS])), FINDINGS))


WHOLE = {"confusion", "params", "versions", "conformal", "abstain", "open_set", "risk_coverage"}
"""Written at once by one place: there as a whole or not at all."""


def test_what_is_tried_is_bounded_and_what_did_not_converge_says_so():
    rows = METRICS["search"] * 40
    page = render(METRICS | {"search": rows}, PREDICTIONS)
    assert f"the best 300 of {len(rows):,}" in page
    assert f"{len(rows):,} configurations, 40 of them not converged" in page


@pytest.mark.parametrize("n", [25, 26])
def test_a_matrix_of_many_classes_becomes_a_list(n):
    names = [f"class {at:02d}" for at in range(n)]
    counts = [[5 if row == column else int(column == row + 1) for column in range(n)] for row in range(n)]
    page = render(METRICS | {"confusion": {"true": names, "predicted": names, "counts": counts}}, PREDICTIONS)
    assert ("Most frequent confusions" in page) == (n > 25)
    assert (f"{n - 1} of {n - 1} pairs" in page) == (n > 25)


def test_a_label_without_a_column_is_a_row_of_the_matrix():
    matrix = {"true": ["a", "b", "new"], "predicted": ["a", "b"], "counts": [[3, 0], [0, 2], [1, 0]]}
    assert "Most often, new is named a (1)." in render(METRICS | {"confusion": matrix}, PREDICTIONS)


def test_the_page_of_many_classes_and_images_stays_small():
    rows = [dict(METRICS["per_class"][0], **{"class": f"class {at}", "f1": at / 5000}) for at in range(5000)]
    findings = {name: part * 500 for name, part in FINDINGS.items()}
    page = render(METRICS | {"per_class": rows}, PREDICTIONS, findings)
    assert "the 200 weakest of 5000 classes" in page
    assert "class 199<" in page
    assert "class 200<" not in page
    assert len(page) < 400_000
