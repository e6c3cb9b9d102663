import html
import re

import pytest
import sample_advice as advised
import sample_report as sample
from page_tags import Tags

from classify.advise.phrases import ADVICE, NAMES
from classify.advise.words import with_words
from classify.report import render
from classify.report.advice import section
from classify.report.evidence import Evidence


def page_of(**changed) -> str:
    return render(sample.metrics() | {"advice": with_words(advised.advice(**changed))}, sample.predictions())


def text_of(page: str) -> str:
    """Take the text of a page, a blank between any two cells."""
    Tags(page)
    return " ".join(html.unescape(re.sub("<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)).split())


def body_of(found: dict) -> str:
    shown = section(Evidence({"advice": found}, [], {}, {}))
    assert shown is not None
    return shown.body


def test_the_advice_comes_first_where_there_is_one():
    titles = re.findall(r'-title">([^<]*)</h2>', page_of())
    assert titles[0] == "Which case is this, and what to do?"
    assert "Which case" not in render(sample.metrics(), sample.predictions())
    assert section(Evidence(sample.metrics(), [], {}, {})) is None


@pytest.mark.parametrize("strategy", ADVICE)
@pytest.mark.parametrize("similarity", NAMES)
def test_every_case_has_a_page_with_all_its_words(similarity, strategy):
    found = with_words(advised.advice(similarity, strategy=strategy))
    text = text_of(page_of(similarity=similarity, strategy=strategy))
    for about, words in found["recommendation"]["parts"].items():
        assert about == "next" or words in text
    assert f"The command for this advice: offshelf fit flowers --strategy {strategy.replace('taps', 'linear')}" in text


def test_the_figure_has_three_panels_and_says_what_they_show():
    body = body_of(with_words(advised.advice()))
    [figure] = re.findall(r"<figure.*?</figure>", body, re.DOTALL)
    assert re.findall(r'aria-label="([^"]*)"', figure) == [
        "accuracy layer by layer",
        "learning curve: accuracy over the number of training images",
        "gain of each way to train, in points",
    ]
    assert "<figcaption>" in figure
    assert "too far to predict" in figure


@pytest.mark.parametrize("gone", ["depth_profile", "learning_curve", "ladder", "diagnostics"])
def test_what_was_not_measured_is_left_out_of_the_figure(gone):
    body = body_of(with_words(advised.advice() | {gone: [] if gone == "ladder" else None}))
    assert body.count("<svg") == (3 if gone == "diagnostics" else 2)
    Tags(body)


def test_an_advice_of_nothing_but_words_is_words():
    assert body_of({"recommendation": {"words": "keep it"}}) == "<p>Keep it.</p>"


def test_rungs_are_listed_with_what_became_of_them_why_and_their_command():
    text = text_of(page_of(strategy="lp-ft"))
    for words in (
        "tail no sure gain +3.0 (+0.0 to +8.7), 61.1 % +0.4 (-0.6 to +1.4)",
        "lp-ft ★ accepted +3.0 (+0.0 to +8.7), 61.1 % +3.1 (+1.7 to +4.5) 94.4 % (92.5 % to 96.3 %) 2 minutes",
        "full not tried +0.4 (+0.0 to +3.5), 9.3 % - - about 10 minutes",
        "full : A gain of over 1 point has a chance of 9 %. offshelf fit flowers --strategy full",
    ):
        assert words in text


def test_a_rung_that_surely_gained_and_failed_in_the_end_is_not_listed_as_accepted():
    failed = advised.tried("full", 0.05, 0.01, accepted=True) | {"why": "failed"}
    text = text_of(body_of(with_words(advised.advice(ladder=[advised.linear(), failed]))))
    assert "full failed +3.0 (+0.0 to +8.7), 61.1 % +5.0 (+4.0 to +6.0)" in text
    assert "Surely better, but its last training failed: full, 5.0 points higher" in text


def test_diagnostics_are_shown_and_said_not_to_decide():
    found = advised.advice() | {"diagnostics": advised.diagnostics() | {"leep": None, "notes": ["no classifier"]}}
    text = text_of(body_of(with_words(found)))
    assert "measured too, and deciding nothing" in text
    assert "first 0.2 (layer1.0.bn1), largest 0.97 (layer4.1.bn1), last 0.97 (layer4.1.bn1)" in text
    assert "images whose 20 nearest agree with their label 87.1 % (85.4 % to 88.8 %)" in text
    assert "LEEP" not in text
    assert "No classifier." in text


def test_names_from_outside_are_escaped():
    found = advised.advice(notes=["<script>"])
    found["depth_profile"]["last"] = found["depth_profile"]["taps"][-1]["layer"] = "<img src=x>"
    found["ladder"][0] |= {"reason": "<b>bold", "command": "offshelf fit '<u>'"}
    body = body_of(with_words(found))
    for tag in ("<script>", "<img", "<b>", "<u>"):
        assert tag not in body
