import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.finetune.plan import Augment, check_tuning, in_epochs, make_plan, pace, shorten
from classify.tuning import STRATEGIES, TuneSpec
from extract.errors import OptionError
from extract.recipe import Preprocessing

PRESET = Preprocessing(256, 224, "bilinear", (0, 0, 0), (1, 1, 1))
CLASHES = (
    ("lp-ft", {"cut": "layer3"}, "--freeze-until"),
    ("tail", {"freeze_until": "layer3"}, "--cut"),
    ("scratch", {"freeze_until": "layer3"}, "noise"),
    ("full", {"views": 2}, "views"),
    ("scratch", {"bn": "frozen"}, "no statistics"),
    ("scratch", {"gradual": True}, "first step"),
    ("scratch", {"layer_decay": 0.5}, "one rate"),
    ("scratch", {"wise": "auto"}, "--wise"),
    ("full", {"wise": 0.5}, "--wise"),
    ("full", {"recipe": "bit", "optimizer": "adamw"}, "SGD"),
    ("scratch", {"recipe": "bit"}, "pretrained"),
    ("full", {"bn": "train", "batch_size": 1}, "statistics"),
    ("scratch", {"batch_size": 1}, "statistics"),
    ("tail", {"recipe": "kornblith", "batch_size": 1}, "statistics"),
)
FITTING = (
    ("tail", {"cut": "layer3", "views": 2, "wise": 0.5}),
    ("lp-ft", {"freeze_until": "layer3", "gradual": True, "layer_decay": 0.5, "wise": "auto"}),
    ("scratch", {"recipe": "kornblith", "bn": "train"}),
    ("full", {"recipe": "bit", "optimizer": "sgd", "bn": "recalibrate"}),
    ("tail", {"recipe": "kornblith", "bn": "affine", "batch_size": 1}),
)


def plan_of(strategy, counts, flip=True, class_weight=None, **asked):
    tune = TuneSpec(**asked)
    return make_plan(tune, strategy, counts=np.array(counts), preset=PRESET, flip=flip, class_weight=class_weight)


@pytest.mark.parametrize(("strategy", "asked", "said"), CLASHES)
def test_what_contradicts_itself_is_refused(strategy, asked, said):
    with pytest.raises(OptionError, match=said):
        check_tuning(strategy, TuneSpec(**asked))
    with pytest.raises(OptionError, match=said):
        plan_of(strategy, [100, 100], **asked)


@pytest.mark.parametrize(("strategy", "asked"), FITTING)
def test_what_goes_together_is_not_refused(strategy, asked):
    check_tuning(strategy, TuneSpec(**asked))


def test_a_strategy_that_is_none_is_named():
    with pytest.raises(OptionError, match=r"no strategy 'lpft' .*lp-ft"):
        check_tuning("lpft", TuneSpec())


def test_what_the_user_says_is_what_is_done():
    asked = {
        "rates": (0.2, 0.1), "weight_decay": 0.3, "steps": 77, "batch_size": 5, "mixup": 0.4, "label_smoothing": 0.1,
        "ema": False, "layer_decay": 0.8, "gradual": True, "bn": "affine", "augment": "flip", "optimizer": "adamw",
    }  # fmt: skip
    plan, _ = plan_of("lp-ft", [30, 30], class_weight="balanced", **asked)
    assert [(setting.rate, setting.weight_decay) for setting in plan.settings] == [(0.1, 0.3), (0.2, 0.3)]
    assert (plan.steps, plan.batch_size, plan.mixup, plan.label_smoothing, plan.ema) == (77, 5, 0.4, 0.1, 0)
    assert (plan.layer_decay, plan.gradual, plan.bn, plan.optimizer) == (0.8, True, "affine", "adamw")
    assert plan.augment == Augment(crop=False, flip=True)
    assert plan.class_weight == "balanced"
    assert plan.decay_below_head


def test_a_zero_is_an_answer():
    plan, _ = plan_of("full", [1000, 1000], mixup=0.0, weight_decay=0.0)
    assert plan.mixup == 0
    assert {setting.weight_decay for setting in plan.settings} == {0}
    assert plan_of("full", [1000, 1000])[0].mixup == 0.1


def test_a_weight_decay_that_is_asked_for_holds_for_all_layers():
    assert not plan_of("tail", [30, 30])[0].decay_below_head
    assert plan_of("tail", [30, 30], weight_decay=0.1)[0].decay_below_head


def test_averaging_can_be_had_where_a_recipe_has_none():
    assert plan_of("full", [60, 60], recipe="kornblith")[0].ema == 0
    assert plan_of("full", [60, 60], recipe="kornblith", ema=True)[0].ema == 0.75


@pytest.mark.parametrize("augment", ["auto", "none", "crop", "flip", "crop+flip"])
@pytest.mark.parametrize("flip", [False, True])
def test_mirrored_images_where_they_do_not_hurt_or_are_asked_for(augment, flip):
    plan, notes = plan_of("tail", [30, 30], flip=flip, augment=augment)
    assert plan.augment.flip == (flip if augment == "auto" else "flip" in augment)
    assert plan.augment.crop == (augment == "auto" or "crop" in augment)
    assert any("hurts" in note for note in notes) == (not flip and "flip" in augment)


def test_settings_come_by_rate_and_decays_over_the_rate_are_plain_numbers():
    tried = plan_of("full", [600, 600])[0].settings
    assert [(setting.rate, setting.weight_decay) for setting in tried[:4]] == [
        (1e-3, 0.0), (1e-3, 0.01), (1e-3, 0.1), (3e-3, 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "fields", "follows"),
    [([600, 600], {}, True), ([600, 600], {"weight_decay": 0.1}, False), ([60, 60], {}, False)],
)
def test_a_decay_follows_the_rate_where_the_recipe_has_it_over_the_rate(counts, fields, follows):
    assert plan_of("full", counts, **fields)[0].decay_over_rate == follows


def test_the_words_say_what_it_means():
    _, notes = plan_of("tail", [122, 122])
    assert notes == [
        "some images a class (50 to 500): 500 steps of 32 images, 66 epochs of 244; rates 0.0003, 0.001, 0.003"
    ]
    assert any("5.0 images a class" in note for note in plan_of("tail", [5, 5])[1])
    assert any("10 images at a time" in note for note in plan_of("full", [30, 30], bn="train", batch_size=10)[1])
    assert any("GroupNorm" in note for note in plan_of("full", [30, 30], recipe="bit")[1])
    assert any("20 settings" in note for note in plan_of("full", [30, 30], recipe="kornblith")[1])
    assert not any(
        "settings" in note for note in plan_of("full", [30, 30], recipe="kornblith", rates=(1.0,), weight_decay=0.0)[1]
    )
    assert in_epochs(plan_of("tail", [500] * 10, steps=100)[0], 5000) == "100 steps of 64 images, 1.3 epochs of 5,000"


def test_classes_without_training_images_do_not_count():
    assert plan_of("tail", [60, 0, 60, 0]) == plan_of("tail", [60, 60])


@given(
    st.sampled_from(STRATEGIES),
    st.lists(st.integers(1, 30_000), min_size=2, max_size=5),
    st.sampled_from(["auto", "kornblith"]),
    st.none() | st.integers(1, 5000),
    st.none() | st.integers(2, 512),
)
def test_every_plan_can_be_carried_out(strategy, counts, recipe, steps, batch_size):
    plan, notes = plan_of(strategy, counts, recipe=recipe, steps=steps, batch_size=batch_size)
    looks = -(-plan.steps // plan.evaluate_every)
    assert min(10, plan.steps) <= looks <= 25
    assert 0 <= plan.warmup_steps < plan.steps
    assert all(plan.warmup_steps < drop < plan.steps for drop in plan.drops)
    assert batch_size or plan.batch_size <= sum(counts)
    assert len(set(plan.settings)) == len(plan.settings)
    assert notes


@given(st.integers(1, 100_000), st.floats(0.01, 1e6))
def test_looks_are_as_often_as_asked_within_bounds(steps, asked):
    every = pace(steps, asked)
    assert min(10, steps) <= -(-steps // every) <= 25
    if steps / 25 <= asked <= steps / 10 and asked == round(asked):
        assert every == asked or asked > steps // 10


def test_a_shorter_plan_is_the_same_in_fewer_steps():
    plan, _ = plan_of("full", [60, 60], recipe="bit")
    short = shorten(plan, 100)
    assert (short.steps, short.warmup_steps, short.drops, short.evaluate_every) == (100, 20, (40, 60, 80), 10)
    assert (short.settings, short.batch_size, short.schedule) == (plan.settings, plan.batch_size, plan.schedule)
    assert shorten(plan, plan.steps) == plan
