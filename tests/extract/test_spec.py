import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import OffshelfError, OptionError, SourceError, TapError, unknown
from extract.spec import Preprocessing, Recipe, Tap

PRESET = Preprocessing(256, 224, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RECIPE = Recipe("torchvision:resnet18", "0" * 64, (Tap("layer4"),), ("layer4",), PRESET, "pillow", "fp32", "float32")
CHANGED = {
    "model": "torchvision:resnet34",
    "weights_sha256": "1" * 64,
    "taps": (Tap("layer4", "max"),),
    "nodes": ("layer4.1.relu_1",),
    "preprocessing": dataclasses.replace(PRESET, resize_size=232),
    "decoder": "another",
    "precision": "bf16",
    "store": "float16",
    "schema_version": 2,
}
CHANGED_PRESET = {
    "resize_size": 232,
    "crop_size": 192,
    "interpolation": "bicubic",
    "mean": (0.5, 0.456, 0.406),
    "std": (0.229, 0.224, 0.5),
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe)])
def test_every_field_of_the_recipe_moves_the_key(field):
    assert dataclasses.replace(RECIPE, **{field: CHANGED[field]}).key != RECIPE.key


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Preprocessing)])
def test_every_parameter_of_the_preprocessing_moves_the_key(field):
    changed = dataclasses.replace(PRESET, **{field: CHANGED_PRESET[field]})
    assert dataclasses.replace(RECIPE, preprocessing=changed).key != RECIPE.key


def test_the_pool_of_a_tap_and_its_layer_move_the_key():
    for tap in (Tap("layer3"), Tap("layer4", "max")):
        assert dataclasses.replace(RECIPE, taps=(tap,)).key != RECIPE.key


def test_differences_are_told_in_words():
    assert RECIPE.differences(RECIPE) == []
    other = dataclasses.replace(
        RECIPE,
        weights_sha256="a" * 64,
        preprocessing=dataclasses.replace(PRESET, resize_size=232, mean=(0.5, 0.5, 0.5)),
        taps=(Tap("layer3"), Tap("penultimate", "max")),
        nodes=("layer3", "flatten"),
    )
    assert other.differences(RECIPE) == [
        "weights sha256 000000000000 -> aaaaaaaaaaaa",
        "resize_size 256 -> 232",
        "mean 0.485,0.456,0.406 -> 0.5,0.5,0.5",
        "layers layer4 -> layer3, penultimate:max",
    ]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe)])
def test_every_difference_has_words(field):
    assert dataclasses.replace(RECIPE, **{field: CHANGED[field]}).differences(RECIPE)


def test_the_key_is_fixed_for_all_time():
    assert RECIPE.key == "aa48d8236ccc5768ea0de6eeb91f03aa3fe48eb0414dfbeb4a614f2eafbf5ba2"


NAMES = st.text(st.characters(blacklist_characters="/:", blacklist_categories=["Cs"]), min_size=1)
FLOATS = st.floats(0.001, 10)


@given(
    taps=st.lists(st.builds(Tap, NAMES, NAMES), min_size=1, unique=True),
    mean=st.tuples(FLOATS, FLOATS, FLOATS),
    size=st.integers(1, 256),
)
def test_a_recipe_survives_json(taps, mean, size):
    preset = dataclasses.replace(PRESET, mean=mean, crop_size=size)
    recipe = dataclasses.replace(RECIPE, taps=tuple(taps), nodes=tuple(t.layer for t in taps), preprocessing=preset)
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.key == recipe.key


@given(st.builds(Tap, NAMES, st.sampled_from(["avg", "grid:4", "avg+max"])))
def test_a_tap_survives_its_name(tap):
    assert Tap.parse(tap.name) == tap


@pytest.mark.parametrize("text", ["", ":avg", "layer1:", "a/b"])
def test_a_tap_that_is_none_is_refused(text):
    with pytest.raises(TapError, match="is not NAME"):
        Tap.parse(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize_size": 0},
        {"crop_size": 5000},
        {"crop_size": 257},
        {"interpolation": "cubic"},
        {"std": (0.0, 1.0, 1.0)},
        {"std": (float("nan"), 1.0, 1.0)},
        {"mean": (0.5, 0.5)},
        {"mean": (float("inf"), 0.5, 0.5)},
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(OptionError):
        dataclasses.replace(PRESET, **wrong)


def test_the_penultimate_tap_is_the_primary_one_else_the_deepest():
    taps = (Tap("layer1"), Tap("penultimate"), Tap("zzz"))
    assert dataclasses.replace(RECIPE, taps=taps).primary == Tap("penultimate")
    assert dataclasses.replace(RECIPE, taps=taps[::2]).primary == Tap("zzz")


def test_an_error_says_what_where_and_what_to_do():
    error = SourceError("no images", where="photos", remedy="Add some")
    assert str(error) == "photos: no images. Add some"
    assert json.dumps(error.as_dict()) == (
        '{"type": "SourceError", "what": "no images", "where": "photos", "remedy": "Add some"}'
    )


def test_an_unknown_name_is_told_with_the_nearest_and_the_list():
    with pytest.raises(OffshelfError, match=r"no head 'logistics' \(nearest: 'logistic'\). Known: logistic, knn."):
        unknown("head", "logistics", ["logistic", "knn"], OptionError)
