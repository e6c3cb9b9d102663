import pytest
import sample_report as sample
from page_tags import Tags

from classify.report import render, thumbnails, wanted_thumbnails
from classify.report.thumbnails import MAX_OUTLIERS, MAX_PAIRS, MAX_SUSPECTS, MAX_WORST, safe_pictures
from classify.report.worst import sureness, worst_errors

GOOD = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize("kind", ["jpeg", "webp", "png"])
def test_pictures_of_three_kinds_are_let_in(kind):
    uri = GOOD.replace("png", kind)
    assert safe_pictures({"a": uri}, ["a", "b"]) == {"a": uri}


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "",
        "https://example.org/a.png",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:text/html;base64,PHN2Zz4=",
        "data:image/png,raw",
        f'{GOOD}" onerror="alert(1)',
        f"{GOOD}\n",
        f" {GOOD}",
        GOOD.upper(),
    ],
)
def test_anything_else_is_dropped(uri):
    assert safe_pictures({"a": uri}, ["a"]) == {}


def test_pictures_are_bounded_one_by_one_and_together(monkeypatch):
    monkeypatch.setattr(thumbnails, "MAX_PICTURE_CHARS", 50)
    monkeypatch.setattr(thumbnails, "MAX_PICTURES_CHARS", 2 * len(GOOD) + 3)
    large = GOOD.replace("Ggo=", "A" * 30)
    assert len(large) > 50
    assert list(safe_pictures({"a": large, "b": GOOD, "c": GOOD, "d": GOOD}, "abcd")) == ["b", "c"]


def test_what_is_wanted_is_what_is_shown():
    predictions, findings = sample.predictions(), sample.findings()
    wanted = wanted_thumbnails(predictions, findings)
    assert len(wanted) == len(set(wanted)) <= MAX_WORST + MAX_SUSPECTS + 4 * MAX_PAIRS + MAX_OUTLIERS
    every = {row["id"] for row in predictions} | {row["id"] for row in findings["suspect_labels"]} | set(wanted)
    page = render(sample.metrics(), predictions, findings, dict.fromkeys(sorted(every), GOOD))
    assert {image["alt"] for image in Tags(page).all("img")} == set(wanted)


def test_without_pictures_the_words_stand_alone():
    predictions = sample.predictions()
    page = render(sample.metrics(), predictions, sample.findings())
    assert not Tags(page).all("img")
    assert f"{MAX_WORST} of {len(worst_errors(predictions))} wrong answers" in page


def test_the_surest_errors_come_first_and_right_answers_never():
    rows = [
        {"id": "a", "label": "x", "predicted": "x", "probability": 0.99},
        {"id": "b", "label": "x", "predicted": "y", "probability": "0.4"},
        {"id": "c", "label": "x", "predicted": "y", "probability": 0.9},
    ]
    assert [row["id"] for row in worst_errors(rows)] == ["c", "b"]


def test_pairs_across_the_split_come_first_then_those_with_two_labels():
    def pair(name, split, label, distance):
        return {"id_a": name, "id_b": name, "split_a": "train", "split_b": split, "label_a": "x", "label_b": label,
                "distance": distance}  # fmt: skip

    rows = [pair("near", "train", "x", 0.1), pair("far", "train", "x", 0.2), pair("two", "train", "y", 0.3)]
    rows.append(pair("across", "test", "x", 0.4))
    assert [row["id_a"] for row in thumbnails.ordered_pairs(rows)] == ["across", "two", "near", "far"]


def test_of_several_labels_the_wrongest_counts():
    row = {"id": "a", "label": "cat|dog", "predicted": "cat|cow", "probabilities": {"cat": 0.9, "dog": 0.2, "cow": 0.7}}
    assert sureness(row) == 0.8
    assert sureness(row | {"label": "cat|cow|dog"}) == 0.8
    assert sureness(row | {"label": "-"}) == 0.9
    assert sureness(row | {"probabilities": None}) is None
