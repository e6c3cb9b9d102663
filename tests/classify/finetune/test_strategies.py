from dataclasses import replace

import pytest

from classify.finetune.strategies import STRATEGIES, kept_until, last_stage_but_one, trained_tap
from classify.tuning import STRATEGIES as NAMES
from classify.tuning import TuneSpec
from extract.errors import TapError
from extract.recipe import Preprocessing, Recipe, Tap

PRESET = Preprocessing(64, 64, "bilinear", (0.5,) * 3, (0.5,) * 3)


def recipe(model: str, **taps: str) -> Recipe:
    """A recipe of taps by name, each at its node."""
    names = tuple(Tap.parse(name) for name in taps)
    return Recipe(model, "0" * 64, names, tuple(taps.values()), PRESET, "pillow", "fp32", "float32")


RESNET = {"layer3": "layer3.1.relu_1", "penultimate": "flatten"}


def test_every_strategy_that_can_be_asked_for_is_known():
    assert tuple(STRATEGIES) == NAMES


@pytest.mark.parametrize(
    ("model", "taps", "cut"),
    [
        ("resnet18", {"penultimate": "flatten"}, "layer3"),
        ("resnet18", {"layer3": "layer3.1.relu_1"}, "layer2"),
        ("squeezenet1_1", {"penultimate": "features.12.cat"}, "features.7"),
        ("builtin", {"penultimate": "flatten"}, "layer2"),
    ],
)
def test_a_tail_is_the_last_stage_with_weights_below_its_tap(model, taps, cut):
    known = recipe(model, **taps)
    assert last_stage_but_one(known, next(iter(taps))) == cut


def test_where_no_stage_lies_below_a_cut_is_asked_for():
    with pytest.raises(TapError, match="no stage below 'relu'"):
        last_stage_but_one(recipe("resnet18", relu="relu"), "relu")


def test_the_head_stands_on_the_penultimate_layer_or_the_deepest_of_those_asked_for():
    known = recipe("resnet18", **RESNET)
    assert trained_tap(known, ("layer3", "penultimate")) == "penultimate"
    assert trained_tap(known, ("layer3",)) == "layer3"
    turned = replace(known, taps=known.taps[::-1], nodes=known.nodes[::-1])
    assert trained_tap(turned, ("layer3", "penultimate")) == "penultimate"


def test_what_stays_is_what_was_asked_for():
    known, tune = recipe("resnet18", **RESNET), TuneSpec(cut="layer1", freeze_until="layer2")
    kept = {name: kept_until(strategy, tune, known, "penultimate") for name, strategy in STRATEGIES.items()}
    assert kept == {"tail": "layer1", "lp-ft": "layer2", "full": "layer2", "scratch": "layer2"}
    assert kept_until(STRATEGIES["lp-ft"], TuneSpec(), known, "penultimate") is None
    assert kept_until(STRATEGIES["tail"], TuneSpec(), known, "penultimate") == "layer3"
