from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sample_advice as sample

from classify.advise.advice import make_advice
from classify.advise.profile import Profile, TapScore
from classify.advise.rungs import LEFT
from classify.advise.survey import Seen
from classify.folds import Part
from classify.spec import FitSpec
from classify.tuning import TuneSpec

SPEC = FitSpec("flowers", strategy="auto", tune=TuneSpec(budget_s=90.0), min_gain=0.02)


def part(*counts: int) -> Part:
    y = np.repeat(np.arange(len(counts)), counts)
    return Part(np.arange(len(y)), y, None)


def seen(similar: bool = True) -> Seen:
    found = sample.profile("similar")
    taps = tuple(TapScore(**tap) for tap in found["taps"])
    profile = Profile(taps, found["drop"], found["gain"], found["peak"], found["n"], "accuracy")
    return Seen(None, profile if similar else None, sample.diagnostics(), {}, ["a note"])


def ladder(rows: list[dict], best: str = "linear") -> Any:
    return SimpleNamespace(rows=rows, best=best, task=SimpleNamespace(metric="accuracy"))


def made(curve: str | None = "saturated", train: Part | None = None, **changed: Any) -> dict[str, Any]:
    rows = {"seen": seen(), "ladder": ladder(sample.ladder("linear"))} | changed
    return make_advice(SPEC, train or part(60, 60), curve and sample.curve(curve), rows["seen"], rows["ladder"])


def test_all_that_was_found_is_in_it_and_said_in_words():
    advice = made()
    assert advice["case"]["name"] == "large and similar"
    assert (advice["case"]["n_train"], advice["case"]["n_per_class"]) == (120, 60.0)
    assert (advice["budget_s"], advice["min_gain"], advice["notes"]) == (90.0, 0.02, ["a note"])
    assert advice["depth_profile"]["similarity"] == "similar"
    assert advice["diagnostics"] == sample.diagnostics()
    assert advice["recommendation"]["words"].startswith(advice["case"]["words"])


@pytest.mark.parametrize(
    ("curve", "counts", "size"),
    [
        ("data-limited", (900, 900), "small"),
        ("saturated", (9, 9), "large"),
        ("undecided", (49, 49, 900), "small"),
        ("undecided", (50, 50, 9), "large"),
        (None, (49, 49), "small"),
        (None, (50, 50), "large"),
    ],
)
def test_the_size_is_what_the_curve_says_and_only_without_it_the_number_of_images(curve, counts, size):
    advice = made(curve, part(*counts))
    assert advice["case"]["size"] == size
    assert (advice["learning_curve"] or {}).get("limited") == curve


def test_a_class_that_only_the_test_has_is_not_counted():
    y = np.repeat([0, 2], 50)
    assert made(None, Part(np.arange(100), y, None))["case"]["n_per_class"] == 50


def test_without_a_profile_the_case_is_unclear():
    assert made(seen=seen(similar=False))["case"]["similarity"] == "unclear"


def test_what_was_taken_is_recommended_with_the_command_that_does_it():
    advice = made(ladder=ladder(sample.ladder("lp-ft"), "lp-ft"))["recommendation"]
    assert (advice["strategy"], advice["command"][-1]) == ("lp-ft", "lp-ft")


@pytest.mark.parametrize(("p", "strategy"), [(0.5, "tail"), (0.49, "linear")])
def test_what_was_left_is_recommended_where_it_is_likely_to_pay_and_tried_by_the_fit_that_takes_only_what_does(
    p, strategy
):
    left = sample.wanted("tail")
    left["predicted"]["p"] = p
    assert left["why"] == LEFT
    advice = made(ladder=ladder([sample.linear(), left, sample.row("lp-ft")]))["recommendation"]
    assert advice["strategy"] == strategy
    known = ["--strategy", "auto", "--min-gain", "0.02", "--budget", "90"]
    assert advice["command"] == ["offshelf", "fit", "flowers", *known]
