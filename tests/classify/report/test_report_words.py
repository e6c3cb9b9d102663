import shlex
import subprocess

import pytest
import sample_report as sample
from page_tags import Tags

from classify.report import command_line, render, tap_plot
from classify.report.calibration import bins_of
from classify.report.evidence import Evidence, leading
from classify.report.growth import right_now, verdict_of, with_twice
from classify.report.steps import MAX_STEPS, next_steps
from classify.report.text import decimal, duration, number, percent, plural, sentence, share


def text_of(metrics: dict) -> str:
    return Tags(render(metrics, sample.predictions(), sample.findings())).text


def evidence(**changed) -> Evidence:
    return Evidence(sample.metrics() | changed, [], {}, {})


def test_numbers_are_written_as_people_read_them():
    assert [percent(0.9125), percent("0.5"), percent(None), percent("")] == ["91.2 %", "50.0 %", "-", "-"]
    assert [number(1234567), number(0.012345), number("a<b"), number(None)] == ["1,234,567", "0.01235", "a&lt;b", "-"]
    assert [decimal("0.123456"), decimal("inf?")] == ["0.1235", "inf?"]
    assert share({"value": 0.5, "low": 0.4, "high": 0.6}) == "50.0 % (40.0 % to 60.0 %)"
    assert [plural(1, "pair"), plural(1200, "pair"), plural(2, "class", "classes")] == [
        "1 pair",
        "1,200 pairs",
        "2 classes",
    ]
    assert [sentence("no image is twice"), sentence("Done."), sentence("")] == ["No image is twice.", "Done.", ""]


def test_times_are_told_in_the_unit_that_people_would_take():
    said = {0.2: "0 seconds", 1.2: "1 second", 89: "89 seconds", 90: "2 minutes", 734: "12 minutes", 5400: "1.5 hours"}
    assert {seconds: duration(seconds) for seconds in said} == said


def test_the_verdict_says_how_many_are_right_and_against_what():
    m = sample.metrics()
    text = text_of(m)
    right = f"{m['test']['accuracy']['value'] * 100:.1f} %"
    assert f"Of 400 test images that it had not seen, the classifier names {right} right" in text
    assert (
        f"clearly better than always giving the class that is commonest in training ({percent(m['baseline'])})" in text
    )
    assert "In cross-validation its accuracy reads 91.3 %; corrected for having been chosen it is 89.8 %" in text
    assert "What grouping changes: 212 groups: 95.1% where a group may be trained and tested on" in text
    assert "Left out: 3 images could not be read." in text
    wordless = text_of(m | {"grouping": m["grouping"] | {"words": None}})
    assert "would read 95.1 %; kept together it reads 91.3 %" in wordless


def test_no_better_than_the_commonest_class_is_said_first():
    text = text_of(sample.metrics() | {"baseline": 0.95})
    assert "not clearly better than always giving" in text
    assert next_steps(evidence(baseline=0.95))[0].startswith("<strong>Do not use it yet</strong>")


def test_balanced_accuracy_leads_where_classes_are_uneven():
    m = sample.metrics() | {"imbalance": {"ratio": 4.23, "leads": "balanced_accuracy"}}
    text = text_of(m)
    value = percent(m["test"]["balanced_accuracy"]["value"])
    assert f"flowers: {value} right, class by class" in text
    assert f"it names {value} of a class right on average over the classes" in text
    assert "4.2 times the images of the smallest" in text
    assert "commonest in training (10.0 %)" in text


def test_warnings_stand_above_what_to_do_and_both_above_the_charts():
    page = render(sample.metrics(), sample.predictions(), sample.findings())
    order = [page.index(words) for words in ('class="verdict"', 'class="warn"', 'class="next"', "<svg")]
    assert order == sorted(order)


def test_no_test_part_leaves_cross_validation():
    text = text_of(sample.metrics() | {"test": None})
    assert "In cross-validation, the classifier names 91.3 % right" in text
    assert "This run holds no measure." in text_of(sample.metrics() | {"test": None, "cv": None})


@pytest.mark.parametrize(
    ("metrics", "name"),
    [({"test": {}}, None), ({"cv": {"macro_f1": sample.measure(0.5)}}, "macro_f1"), (sample.multi_metrics(), "map")],
)
def test_the_leading_measure_is_one_that_was_measured(metrics, name):
    assert leading(Evidence(metrics, [], {}, {})) == name


def test_what_to_do_next_follows_from_what_was_found():
    steps = next_steps(evidence())
    assert len(steps) == MAX_STEPS
    said = " ".join(steps)
    for words in (
        "6 test images have a twin in training",
        "31 suspect labels",
        "2 pairs of equal images",
        "Collect more",
    ):
        assert words in said
    clean = evidence(hygiene=None, learning_curve=None, per_class=[])
    assert next_steps(clean) == ["To use it: <code>offshelf predict runs/flowers IMAGES</code>"]


def test_the_weakest_class_is_named_where_it_is_far_behind_and_known():
    rows = [{"class": "rare", "support": 2, "recall": 0.0}, {"class": "weak", "support": 9, "recall": 0.5},
            {"class": "good", "support": 9, "recall": 0.9}, {"class": "no", "support": 0, "recall": None}]  # fmt: skip
    said = next_steps(evidence(hygiene=None, learning_curve=None, per_class=rows))[0]
    assert "weak</a>: only 50.0 % of it is found" in said


def test_twice_the_data_is_read_from_the_prediction():
    found = sample.curve()
    twice = with_twice(found)
    assert twice.n == 2560
    assert twice.value == pytest.approx(1 - found["predictions"][0]["error"]["value"])
    assert twice.low == pytest.approx(1 - found["predictions"][0]["error"]["high"])
    now = 1 - found["a"] - found["eta"] / 1280**0.5
    likely = f"{percent(twice.low)} to {percent(twice.high)}"
    said = f"expect about {percent(twice.value)} ({likely}) instead of {percent(now)}: worth collecting."
    assert said in text_of(sample.metrics())
    assert right_now(found | {"a": None}) == pytest.approx(1 - found["points"][-1]["error"]["value"])
    assert with_twice(found | {"predictions": None}) is None
    assert "Limited by the number of images" in text_of(
        sample.metrics() | {"learning_curve": found | {"predictions": []}}
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [({"verdict": "saturated"}, "saturated"), ({"slope_per_doubling": -0.02}, "data-limited"),
     ({"slope_per_doubling": -0.002}, "saturated"), ({"slope_per_doubling": None}, "undecided")],
)  # fmt: skip
def test_the_verdict_on_more_images(found, expected):
    assert verdict_of(found) == expected


def test_sets_that_hold_less_than_promised_are_called_out():
    promised = sample.calibration()
    assert "less than promised" not in text_of(sample.metrics())
    promised["conformal"] |= {"coverage": sample.measure(0.8)}
    assert "less than promised" in text_of(sample.metrics() | {"calibration": promised})


def test_bins_are_of_equal_mass_and_hold_every_answer():
    rows = sample.predictions()
    bins = bins_of(rows)
    assert [each.count for each in bins] == [40] * 10
    assert sum(each.count * each.accuracy for each in bins) == pytest.approx(
        sum(r["label"] == r["predicted"] for r in rows)
    )
    assert sum(each.count * each.confidence for each in bins) == pytest.approx(sum(r["probability"] for r in rows))
    assert [each.confidence for each in bins] == sorted(each.confidence for each in bins)
    assert bins_of([]) == []
    assert [each.count for each in bins_of(rows[:3])] == [1, 1, 1]


def test_the_command_is_one_that_a_shell_reads_back():
    words = ["offshelf", "fit", "a b", "it's", "", "$HOME", "two\nlines", "\udcff.png", "\\t'\x07", "größe"]
    line = command_line({"command": words})
    assert "\n" not in line
    shown = subprocess.run(["/bin/bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    assert shown.decode("utf-8", "surrogateescape").split("\0")[:-1] == words
    assert shlex.split(command_line({"command": ["a b", "c"]})) == ["a b", "c"]
    assert command_line({"command": None}) is None
    assert command_line({}) is None


def test_the_plot_of_taps_marks_the_chosen_one():
    m = sample.old_metrics()
    assert tap_plot(m).count("★") == 1
    assert "penultimate" in tap_plot(m)
    assert "by 5-fold cross-validation on the training images" in text_of(m)
    told = [row | {"how": "exact leave-one-out"} for row in m["per_layer"]]
    assert "by exact leave-one-out on the training images" in text_of(m | {"per_layer": told})
    joined = tap_plot(sample.metrics())
    assert joined.count("★") == 1
    assert joined.count("<circle") == len(sample.TAPS) + 1
    assert "chosen: layer3:grid:2 + penultimate: 91.3%" in joined
    assert tap_plot({"features": "a/b", "layers": ["x"], "per_layer": None}).startswith("<svg")
