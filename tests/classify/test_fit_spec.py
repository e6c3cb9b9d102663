from dataclasses import replace

import pytest

from classify.spec import FitSpec
from classify.tuning import TuneSpec
from extract.errors import OptionError


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"head": "logistics"}, "nearest: 'logistic'"),
        ({"head": "sklearn.linear_model.Nothing"}, "has no 'Nothing'"),
        ({"head": "sklearn.linear_model.Ridge"}, "a regressor and no classifier"),
        ({"head": "logistic", "params": {"C": [1.0]}}, "logistic"),
        ({"head": "sklearn.naive_bayes.GaussianNB", "params": {"depth": [1]}}, "no parameter 'depth'"),
        ({"metric": "f1"}, "macro_f1"),
        ({"strategy": "head"}, "no strategy 'head'"),
        ({"protocol": "vtab"}, "no protocol 'vtab'"),
        ({"protocol": "clip", "multi_label": True}, "exclude each other"),
        ({"protocol": "clip", "head": "ridge"}, "brings its own head"),
        ({"few_shot": 2, "class_weight": "balanced"}, "brings its own head"),
        ({"protocol": "kornblith", "answer_accuracy": 0.9}, "brings its own head"),
        ({"protocol": "clip", "cv": 3}, "splits of its own"),
        ({"few_shot": 2, "alpha": 0.2}, "splits of its own"),
        ({"protocol": "clip", "duplicates": "always"}, "splits of its own"),
        ({"multi_label": True, "alpha": 0.2}, "no prediction sets of several labels"),
        ({"head": "knn", "class_weight": "balanced"}, "knn cannot weigh classes"),
        ({"few_shot": 0}, "few_shot=0"),
        ({"few_shot": 5, "draws": 4}, "draws=4"),
        ({"alpha": 1.0}, "between 0 and 1"),
        ({"alpha": 0.0}, "between 0 and 1"),
        ({"answer_accuracy": 0.0}, "between 0 and 1"),
        ({"duplicates": "maybe"}, "no duplicates 'maybe'"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"cv": 1}, "cv=1"),
        ({"jobs": 0}, "jobs=0"),
        ({"hold_out": 0.0}, "hold_out=0.0"),
        ({"hold_out": 0.6}, "hold_out=0.6"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed=4294967296"),
    ],
)
def test_options_that_mean_nothing_are_refused_with_a_way_out(wrong, said):
    with pytest.raises(OptionError) as caught:
        FitSpec("tiny", **wrong)
    assert said in str(caught.value)
    assert caught.value.remedy


def test_images_a_class_are_drawn_by_a_protocol_too():
    assert FitSpec("tiny").published is None
    assert FitSpec("tiny", few_shot=5).published == "few-shot"
    assert FitSpec("tiny", protocol="clip").published == "clip"


def test_a_network_is_trained_for_one_label_an_image_and_beside_the_plain_head():
    assert FitSpec("f", strategy="tail", tune=TuneSpec(steps=5)).tune.steps == 5
    for wrong in ({"multi_label": True}, {"protocol": "clip"}, {"few_shot": 3}, {"head": "ridge"}):
        with pytest.raises(OptionError, match="one label an image"):
            FitSpec("f", strategy="lp-ft", **wrong)
    for strategy, head in (("linear", "logistic"), ("", "ridge"), ("linear", "ridge")):
        with pytest.raises(OptionError, match="trains nothing but a head"):
            FitSpec("f", strategy=strategy, head=head, tune=TuneSpec(steps=5))


@pytest.mark.parametrize(
    ("asked", "strategy"),
    [
        ({}, "auto"),
        ({"class_weight": "balanced", "layers": ("layer3",), "tune": TuneSpec(steps=5, cut="layer2")}, "auto"),
        ({"head": "ridge"}, "linear"),
        ({"head": "sklearn.naive_bayes.GaussianNB", "params": {"var_smoothing": [1e-9]}}, "linear"),
        ({"protocol": "clip"}, "linear"),
        ({"few_shot": 5}, "linear"),
        ({"multi_label": True}, "linear"),
        ({"strategy": "linear"}, "linear"),
        ({"strategy": "full"}, "full"),
    ],
)
def test_what_pays_is_found_out_unless_a_strategy_is_named_or_something_that_only_heads_can(asked, strategy):
    assert FitSpec("f", **asked).strategy == strategy
    assert replace(FitSpec("f", **asked), seed=3).strategy == strategy


@pytest.mark.parametrize(
    ("asked", "option"),
    [
        ({"multi_label": True}, "--multi-label"),
        ({"few_shot": 3}, "--few-shot"),
        ({"protocol": "clip"}, "--protocol"),
        ({"head": "ridge"}, "--head"),
    ],
)
def test_what_is_to_be_left_out_is_only_what_was_given(asked, option):
    with pytest.raises(OptionError) as caught:
        FitSpec("f", strategy="auto", **asked)
    assert caught.value.remedy == f"Leave {option} out, or take --strategy linear"
    with pytest.raises(OptionError, match=f"{option} goes with the strategy 'linear'"):
        FitSpec("f", tune=TuneSpec(steps=5), **asked)


def test_what_pays_is_found_out_within_a_budget_on_folds_that_are_left_out():
    assert FitSpec("f", strategy="auto").budget_s == 600
    assert FitSpec("f", strategy="auto", tune=TuneSpec(budget_s=90.0)).budget_s == 90
    with pytest.raises(OptionError, match="left out"):
        FitSpec("f", strategy="auto", tune=TuneSpec(folds=0))
    for wrong in (-0.01, 1.0):
        with pytest.raises(OptionError, match="min_gain="):
            FitSpec("f", strategy="auto", min_gain=wrong)
