import re

import pytest
import sample_report as sample
from page_tags import Tags

from classify.report import render
from classify.report.evidence import Evidence
from classify.report.finetuning import gained, section
from classify.report.steps import next_steps


def text_of(metrics: dict) -> str:
    return Tags(render(metrics, sample.predictions(), sample.findings())).text


def evidence(**changed) -> Evidence:
    return Evidence(sample.tuned_metrics() | changed, [], {}, {})


def with_gain(low: float, value: float, high: float) -> Evidence:
    return evidence(
        gain={"out_of_fold": None, "test": {"accuracy": {"value": value, "low": low, "high": high}, "n": 9}}
    )


def test_the_page_of_a_trained_network_has_a_part_more_and_all_the_others():
    page = render(sample.tuned_metrics(), sample.predictions(), sample.findings())
    titles = re.findall(r'-title">([^<]*)</h2>', page)
    assert titles[0] == "Was fine-tuning worth it?"
    assert {"What is taken for what", "Measures, and class by class", "Are its probabilities honest?"} < set(titles)
    assert {"Worst errors", "Layer by layer", "Everything tried"} < set(titles)
    assert "Was fine-tuning" not in render(sample.metrics(), sample.predictions(), sample.findings())


def test_the_verdict_and_the_part_say_what_was_gained_and_how_sure_that_is():
    said = "its accuracy is 5.0 points above the linear probe's (95 % interval +1.0 to +9.0): clearly better"
    text = text_of(sample.tuned_metrics())
    assert text.count(said) == 2
    assert "gain over the probe" in render(sample.tuned_metrics(), [], {})


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ((0.01, 0.05, 0.09), "worth it"),
        ((0.001, 0.005, 0.009), "though by little"),
        ((-0.01, 0.02, 0.05), "may be chance"),
        ((-0.09, -0.05, -0.01), "made it worse"),
    ],
)
def test_a_gain_is_called_what_its_interval_allows(gain, words):
    assert words in gained(with_gain(*gain))


def test_a_gain_is_none_of_a_training_that_kept_what_it_began_with():
    tuned = sample.tuned_metrics()["finetune"]
    [deployed] = [each for each in tuned["trainings"] if each["deployed"]]
    kept = with_gain(0.01, 0.05, 0.09).metrics | {"finetune": tuned | {"trainings": [deployed | {"best_step": 0}]}}
    said = gained(evidence(**kept))
    assert "no step of the training lowered the loss" in said
    assert "worth it" not in said


def test_a_loss_is_said_to_lie_below_and_what_it_rests_on_is_named():
    assert "5.0 points below the linear probe's (95 % interval -9.0 to -1.0)" in gained(with_gain(-0.09, -0.05, -0.01))
    tuned = sample.tuned_metrics()
    tuned["calibration"] = tuned["calibration"] | {"calibrated_on": "out of fold"}
    assert "training images, out of fold" in text_of(tuned)


def test_without_a_training_there_is_nothing_to_say():
    plain = Evidence(sample.metrics(), [], {}, {})
    assert (section(plain), gained(plain)) == (None, "")


def test_a_network_that_is_no_better_is_advised_against():
    assert any("linear probe" in step for step in next_steps(with_gain(-0.02, 0.0, 0.02)))
    assert not any("linear probe" in step for step in next_steps(with_gain(0.01, 0.05, 0.09)))


def test_the_part_shows_course_rates_seeds_and_what_stayed_frozen():
    text = text_of(sample.tuned_metrics())
    for words in (
        "The weights of step 200 were kept",
        "everything above layer2 was trained",
        "3 settings tried",
        "diverged",
        "87.0 %, 89.0 %, on average 88.0 % with a standard deviation of 1.4 %",
        "683,072 were not",
        "is the same before and after: 5e5e5e5e5e5e5e5e",
        "mirrored 61.0%",
        "without fold 1",
    ):
        assert words in text


def test_averages_and_mixtures_are_called_so():
    tuned = sample.tuned_metrics()
    tuned["finetune"]["plan"]["ema"] = 0.75
    assert "The weights of step 200, averaged over the steps before, were kept, the lowest dot." in text_of(tuned)
    tuned["finetune"]["trainings"][1]["share_of_end"] = 0.25
    assert "and kept is a mixture: 25.0 % of them, the rest those of the start." in text_of(tuned)


def test_weights_from_before_the_first_step_are_not_called_trained():
    tuned = sample.tuned_metrics()
    assert "No step lowered the loss" not in text_of(tuned)
    next(row for row in tuned["finetune"]["trainings"] if row["deployed"])["best_step"] = 0
    assert "No step lowered the loss: kept are the weights that it began with, the lowest dot." in text_of(tuned)


def test_digests_that_differ_are_not_called_the_same():
    tuned = sample.tuned_metrics()
    tuned["finetune"]["frozen"]["after"] = "0" * 64
    assert "different after the training" in text_of(tuned)
    tuned["finetune"]["frozen"] |= {"parameters": 0}
    assert "Nothing: all 10,500,000 parameters were free to train" in text_of(tuned)


def test_the_star_among_the_taps_is_the_probes():
    page = render(sample.tuned_metrics(), [], {})
    assert "Of the linear probe, which fine-tuning is held against." in page
    assert page.count("★") >= 3  # the plot of the taps, the list of all configurations, the deployed training


def test_a_run_that_says_less_is_shown_with_what_it_says():
    part = section(evidence(finetune={"strategy": "full"}, gain=None, probe=None))
    assert part is not None
    assert "Was fine-tuning" in part.title


def test_names_from_outside_are_escaped():
    tuned = sample.tuned_metrics()
    tuned["finetune"]["kept_until"] = "<script>"
    tuned["finetune"]["trainings"][0]["name"] = "<img src=x>"
    page = render(tuned, [], {})
    assert "<script>" not in page
    assert "<img src=x>" not in page
