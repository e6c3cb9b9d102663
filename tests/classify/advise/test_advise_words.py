import re

import pytest
import sample_advice as sample
from hypothesis import given
from hypothesis import strategies as st

from classify.advise.ladder import in_points
from classify.advise.phrases import ADVICE, LIMITS, MEANINGS, NAMES, differs, gains, joined
from classify.advise.words import case_name, changes_when, explain, held_back, more_budget, parts, with_words
from classify.report.text import duration, percent

SIZES = ("small", "large")
WHY = ("prevented", "unlikely", "time", "failed", "left to fit")
NUMBER = re.compile(r"(?<![\w.,])-?\d[\d,]*(?:\.\d+)?")


@st.composite
def shares(draw, low: float = 0.0) -> dict[str, float]:
    """A measure with its interval: shares of 1, or from -1 on their differences."""
    ends = sorted(draw(st.lists(st.floats(low, 1.0, allow_subnormal=False), min_size=3, max_size=3)))
    return dict(zip(("low", "value", "high"), ends, strict=True))


@st.composite
def rungs(draw, rung: str) -> dict:
    found, chance = draw(shares()), draw(st.floats(0, 1))
    predicted = {"gain": found["value"], "low": found["low"], "high": found["high"], "p": chance}
    trial = draw(st.none() | st.builds(lambda gain: {"gain": gain, "n": 320}, shares(-1.0)))
    why, takes = draw(st.sampled_from(WHY)), draw(st.floats(0.1, 1e5))
    row = sample.row(rung, why=why, projected_s=takes, measurement=trial)
    row["predicted"] = draw(st.sampled_from([predicted, None]))
    if draw(st.booleans()):
        return row
    done = {
        "tried": True,
        "why": draw(st.sampled_from([None, "failed"])),
        "over": "linear",
        "accepted": draw(st.booleans()),
        "seconds": draw(st.floats(0.1, 1e4)),
    }
    return row | done | {"value": draw(shares()), "gain": draw(st.none() | shares(-1.0))}


@st.composite
def advices(draw) -> dict:
    """Any advice: each case, size and strategy, with each part or without it, and numbers that agree in nothing."""
    similarity, size = draw(st.sampled_from(sorted(NAMES))), draw(st.sampled_from(SIZES))
    found = sample.advice(similarity, size, draw(st.sampled_from(sorted(ADVICE))))
    for tap in found["depth_profile"]["taps"]:
        tap |= {"pretrained": draw(shares()), "random": draw(shares()), "gain": draw(shares(-1.0))}
    found["depth_profile"]["drop"] |= draw(shares(-1.0))
    found["depth_profile"]["gain"] |= draw(shares(-1.0))
    found["learning_curve"] |= {"limited": draw(st.sampled_from(sorted(LIMITS)))}
    for row in found["learning_curve"]["predictions"]:
        row["error"] = draw(shares())
    names = draw(st.lists(st.sampled_from(list(ADVICE)), unique=True))
    found["ladder"] = [draw(rungs(rung)) for rung in names]
    found |= {"budget_s": draw(st.floats(1, 1e5)), "min_gain": draw(st.floats(0, 0.2))}
    found["case"] |= {"n_train": draw(st.integers(4, 10**7)), "n_per_class": draw(st.floats(1, 1e5))}
    gone = draw(st.sets(st.sampled_from(("depth_profile", "learning_curve"))))
    return found | dict.fromkeys(gone)


def allowed(found: dict) -> set[str]:
    """Every number of an advice, in each of the ways in which one may be written; and the 95 of the intervals."""
    every, errors = sample.numbers(found), sample.numbers(found["learning_curve"])
    written = {f"{sign}{abs(value) * 100:.1f}" for value in every for sign in ("", "-")}
    written |= {f"{100 * (1 - error):.1f}" for error in errors}
    written |= {f"{value:,.0f}" for value in every}
    return written | {duration(value).split()[0] for value in every} | {"95"}


@given(advices())
def test_no_number_is_said_that_is_not_in_the_advice(found):
    said = re.sub("`[^`]*`", "", explain(found))
    assert set(NUMBER.findall(said)) <= allowed(found)


@given(advices())
def test_every_part_reads_as_sentences(found):
    for words in [*parts(found).values(), changes_when(found)]:
        assert words[0].isupper()
        assert words.endswith(".")
        assert not re.search(r"  |None|nan|[{}]|\.\.|,,|\( | \)|;\.|,\.| \.", words)
        assert words.count("(") == words.count(")")
        assert not re.search(r"\([^)]*\(", words), "brackets within brackets"


@given(advices())
def test_no_share_is_said_without_its_interval(found):
    """A percentage or a number of points is followed by a bracket, lies in one, or is a chance, a bound or an order."""
    said = re.sub(r"\([^)]*\)", "()", explain(found))
    said = re.sub(r"a chance of [\d.]+ % of more than [\d.]+ points|with 95 % confidence", "", said)
    assert not re.search(r"\d (?:%|points|points (?:higher|lower))(?! (?:\(|higher|lower))", said)


@given(advices())
def test_the_same_advice_is_told_in_the_same_words_and_is_not_changed(found):
    before = repr(found)
    told = with_words(found)
    assert (told, repr(found)) == (with_words(found), before)
    assert told["recommendation"]["words"] == " ".join(told["recommendation"]["parts"].values())
    assert told["case"]["words"] in told["recommendation"]["words"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("similarity", NAMES)
def test_each_case_is_named_with_what_it_means(similarity, size):
    said = explain(sample.advice(similarity, size))
    assert f"“{case_name(similarity, size)}”" in said
    assert MEANINGS[similarity] in said


def test_the_cases_have_the_names_that_everyone_uses():
    assert case_name("similar", "small") == "small and similar"
    assert case_name("different", "large") == "large and different"
    assert case_name("useless", "small").startswith("small, ")
    assert len({case_name(similarity, size) for similarity in NAMES for size in SIZES}) == 8


def test_the_evidence_compares_the_last_layer_with_the_best_before_it_and_with_random_weights():
    said = parts(sample.advice("different"))["evidence"]
    assert "on layer4, the last layer, reaches an accuracy of 74.0 % (72.0 % to 76.0 %)" in said
    assert "on layer3, the best layer before it, 9.1 points higher (7.6 to 10.6 higher)" in said
    assert "random weights in place of the learned ones, on layer4, 39.0 points lower (37.5 to 40.5 lower)" in said
    useless = parts(sample.advice("useless"))["evidence"]
    assert "no layer is surely worse: layer2, which loses most by them, is 0.3 points lower" in useless
    assert "easy" not in useless
    easy = sample.advice("useless")
    easy["depth_profile"]["taps"][1]["random"] = {"value": 0.99, "low": 0.97, "high": 1.0}
    assert "; but layer2 reaches 99.0 % (97.0 % to 100.0 %) with them, and on images as easy" in parts(easy)["evidence"]


@pytest.mark.parametrize("strategy", ADVICE)
def test_the_advice_is_what_to_do_what_that_is_worth_and_the_command(strategy):
    said = parts(sample.advice(strategy=strategy))
    worth = "91.3 % (89.3 % to 93.3 %)" if strategy == "linear" else "94.4 % (92.5 % to 96.3 %)"
    assert said["advice"].startswith(f"The advice: {ADVICE[strategy]}.")
    assert f"On training images held out, its accuracy is {worth}" in said["advice"]
    assert (
        said["next"]
        == f"The command for this advice: `offshelf fit flowers --strategy {strategy.replace('taps', 'linear')}`."
    )
    assert ("untried" in said) == (strategy in ("linear", "taps"))


def test_a_training_that_beat_the_others_says_by_how_much_and_those_are_named():
    said = parts(sample.advice(strategy="full"))
    assert "3.1 points higher (1.7 to 4.5 higher) than with linear" in said["advice"]
    each = "0.4 points higher (0.6 lower to 1.4 higher)"
    assert said["refused"] == f"Tried too, and not surely better: taps, {each}; tail, {each}; and lp-ft, {each}."


def test_what_was_not_tried_yet_says_what_it_is_expected_to_gain_and_to_take():
    ladder = [sample.linear(), sample.row("tail"), sample.wanted("lp-ft")]
    said = parts(sample.advice(strategy="lp-ft", ladder=ladder))["advice"]
    assert "expected to gain 6.1 points (0.4 to 12.1), with a chance of 82.0 % of more than 1.0 points" in said
    assert "it would take about 4 minutes" in said
    unknown = [sample.row("full", predicted=None, projected_s=None)]
    assert "It was not tried yet: it may or may not gain something." in explain(
        sample.advice(strategy="full", ladder=unknown)
    )


def test_where_something_is_left_to_try_the_command_is_one_that_tries_it():
    found = sample.advice(ladder=[sample.linear(), sample.wanted("tail")])
    said = parts(found)["next"]
    assert said.startswith("This tries tail, and takes what surely gains: `offshelf fit")


def test_the_layers_of_the_linear_classifier_are_named():
    assert "It does best on layer4." in parts(sample.advice())["advice"]
    side_by_side = sample.linear() | {"settings": {"layers": ["layer3", "layer4:grid:2", "layer4"]}}
    assert "on layer3 and layer4, side by side." in parts(sample.advice(ladder=[side_by_side]))["advice"]


def test_a_short_first_training_says_what_it_gave():
    said = parts(sample.advice(ladder=[sample.linear(), sample.trial()]))["trial"]
    assert said == (
        "A short first training, beside the linear classifier: tail, 0.4 points lower (1.6 lower to 0.8 higher) on 320 "
        "images held out."
    )
    barred = sample.trial() | {"measurement": {"reason": "no image is at hand"}}
    assert "trial" not in parts(sample.advice(ladder=[sample.linear(), barred]))


def test_the_likeliest_of_what_was_left_out_is_named_where_the_network_stays_as_it_is():
    ladder = [sample.linear(), sample.row("tail"), sample.held_back("lp-ft"), sample.row("full", predicted=None)]
    assert "lp-ft promises most" in parts(sample.advice(ladder=ladder))["untried"]
    for row in ladder:
        row["predicted"] = row["predicted"] and row["predicted"] | {"p": 0.0004}
    assert parts(sample.advice(ladder=ladder))["untried"].endswith("promises anything.")


def test_only_what_time_held_back_is_promised_for_more_time():
    held = sample.held_back("lp-ft")
    found = sample.advice(ladder=[sample.linear(), sample.wanted("tail"), held, sample.row("full", projected_s=9e9)])
    assert held_back(found) == [held]
    said = "With more time than the 10 minutes allowed, lp-ft (about 25 minutes) could be tried too."
    assert more_budget(found) == parts(found)["more_time"] == said
    assert "more time, in which lp-ft could be tried" in changes_when(found)
    assert more_budget(sample.advice()) is None


@pytest.mark.parametrize("limited", LIMITS)
def test_more_images_are_predicted_twice_and_four_times_and_no_further(limited):
    said = parts(sample.advice(learning_curve=sample.curve(limited)))["more_images"]
    assert re.match(r"With twice as many .* of about 92\.3 % \(90\.6 % to 94\.0 %\), with four times as many", said)
    assert said.endswith(f"beyond that nothing can be predicted. {LIMITS[limited]}")


def test_what_was_not_measured_is_said():
    said = explain(sample.advice("unclear", depth_profile=None, learning_curve=None, ladder=[]))
    assert "how well the layers of the network suit them was not measured" in said
    assert "What more training images would bring could not be measured." in said
    assert "The evidence" not in said
    assert "brackets" not in said


def test_what_would_change_the_answer_depends_on_what_it_is():
    assert "enough to tell the case" in changes_when(sample.advice("unclear"))
    assert "a measurement of its layers" in changes_when(sample.advice("unclear", depth_profile=None))
    assert "pays more the more there are" in changes_when(sample.advice(size="small"))
    assert "another network" in changes_when(sample.advice(size="large"))
    assert "does not show what the training gained" in changes_when(sample.advice(strategy="full"))


def test_commands_are_quoted_as_a_shell_reads_them():
    command = {"strategy": "linear", "rung": "linear", "command": ["offshelf", "fit", "my flowers"]}
    assert (
        parts(sample.advice(recommendation=command))["next"]
        == "The command for this advice: `offshelf fit 'my flowers'`."
    )
    assert "next" not in parts(sample.advice(recommendation=command | {"command": None}))


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((-0.025, -0.012, -0.001), "1.2 points lower (0.1 to 2.5 lower)"),
        ((-0.003, 0.012, 0.027), "1.2 points higher (0.3 lower to 2.7 higher)"),
        ((0.003, 0.012, 0.027), "1.2 points higher (0.3 to 2.7 higher)"),
        ((0.0, 0.0, 0.0), "0.0 points higher (0.0 to 0.0 higher)"),
    ],
)
def test_a_difference_is_told_by_its_side(ends, said):
    assert differs(dict(zip(("low", "value", "high"), ends, strict=True))) == said


def test_texts_are_joined_as_people_do():
    assert [joined(texts) for texts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_a_difference_that_rounds_to_none_has_no_sign_of_minus():
    none = {"value": -1e-5, "low": -4e-4, "high": 3e-4, "gain": -1e-5}
    assert in_points(none) == "+0.0 points (+0.0 to +0.0)"
    assert gains(none) == "0.0 points (0.0 to 0.0)"
    assert percent(-1e-9) == "0.0 %"
