import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.errors import OptionError, TapError
from extract.recipe import MAX_VIEWS, SCHEMA_VERSION, Preprocessing, Recipe, Tap

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
    "tf32": True,
    "views": 4,
    "view_seed": 7,
    "view_flips": False,
    "schema_version": 3,
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


def test_what_is_new_in_a_recipe_is_told_in_words():
    other = dataclasses.replace(RECIPE, tf32=True, views=4, view_seed=7, view_flips=False)
    told = ["tf32 off -> on", "views 1 -> 4", "view_seed 0 -> 7", "view_flips on -> off"]
    assert other.differences(RECIPE) == told


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe)])
def test_every_difference_has_words(field):
    assert dataclasses.replace(RECIPE, **{field: CHANGED[field]}).differences(RECIPE)


def test_the_key_is_fixed_for_all_time():
    assert RECIPE.key == "aff132b608ba3f1400223dbfebcacec6db1b5a42b96ff9a7ec849fb3e2c25f7d"


NAMES = st.text(st.characters(blacklist_characters="/:@", blacklist_categories=["Cs"]), min_size=1)
FLOATS = st.floats(0.001, 10)


@given(
    taps=st.lists(st.builds(Tap, NAMES, NAMES), min_size=1, unique=True),
    mean=st.tuples(FLOATS, FLOATS, FLOATS),
    size=st.integers(1, 256),
    looks=st.fixed_dictionaries(
        {
            "tf32": st.booleans(),
            "views": st.integers(1, MAX_VIEWS),
            "view_seed": st.integers(0),
            "view_flips": st.booleans(),
        }
    ),
)
def test_a_recipe_survives_json(taps, mean, size, looks):
    preset = dataclasses.replace(PRESET, mean=mean, crop_size=size)
    nodes = tuple(tap.layer for tap in taps)
    recipe = dataclasses.replace(RECIPE, taps=tuple(taps), nodes=nodes, preprocessing=preset, **looks)
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.key == recipe.key


def test_mirrored_views_leave_the_json_as_it_was_before_they_could_be_left_out():
    assert "view_flips" not in json.loads(RECIPE.to_json())
    assert json.loads(dataclasses.replace(RECIPE, view_flips=False).to_json())["view_flips"] is False


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe) if field.name != "view_flips"])
def test_a_recipe_without_one_of_its_fields_is_none(field):
    value = json.loads(RECIPE.to_json())
    del value[field]
    with pytest.raises(KeyError, match=field):
        Recipe.from_json(json.dumps(value))


def test_a_recipe_of_the_first_version_is_told_to_be_one():
    value = json.loads(RECIPE.to_json())
    old = {name: said for name, said in value.items() if name not in ("tf32", "views", "view_seed")}
    for version in (1, SCHEMA_VERSION + 1, "2", None, [[]]):
        with pytest.raises(ValueError, match=r"a recipe of version .*, and not 2"):
            Recipe.from_json(json.dumps(old | {"schema_version": version}))


@pytest.mark.parametrize(
    "change",
    [
        {"model": 3},
        {"weights_sha256": None},
        {"decoder": ["pillow"]},
        {"precision": {}},
        {"store": 4},
        {"precision": "fp8"},
        {"precision": "auto"},
        {"store": "object"},
        {"tf32": 0},
        {"tf32": "false"},
        {"tf32": None},
        {"views": True},
        {"views": 1.0},
        {"views": "4"},
        {"views": 0},
        {"views": -1},
        {"views": MAX_VIEWS + 1},
        {"views": 10**300},
        {"view_seed": False},
        {"view_seed": 0.5},
        {"view_seed": "0"},
        {"view_seed": -1},
        {"view_flips": True},
        {"view_flips": 0},
        {"view_flips": None},
        {"schema_version": 2.0},
        {"another": 1},
        {"taps": {}},
        {"taps": []},
        {"taps": [], "nodes": []},
        {"taps": ["layer4"]},
        {"taps": [{"layer": "layer4"}, {"layer": "layer3"}]},
        {"taps": [{"layer": 4, "pool": "avg"}]},
        {"taps": [{"layer": ["layer4"], "pool": "avg"}]},
        {"taps": [{"layer": "layer4", "pool": ""}]},
        {"taps": [{"layer": "layer4", "pool": "max", "more": ""}]},
        {"taps": [{"layer": "layer4@1", "pool": "avg"}]},
        {"taps": [{"layer": "layer4", "pool": "max@1"}]},
        {"taps": [{"layer": "../layer4", "pool": "avg"}]},
        {"taps": [{"layer": "layer4:max", "pool": "avg"}]},
        {"nodes": [4]},
        {"nodes": "layer4"},
        {"preprocessing": []},
        {"preprocessing": dataclasses.asdict(PRESET) | {"crop_size": 0}},
        {"preprocessing": dataclasses.asdict(PRESET) | {"mean": [0.5]}},
        {"preprocessing": dataclasses.asdict(PRESET) | {"mean": [10**400, 0, 0]}},
    ],
    ids=str,
)
def test_a_recipe_that_says_what_no_recipe_can_is_refused(change):
    with pytest.raises((ValueError, TypeError)):
        Recipe.from_json(json.dumps(json.loads(RECIPE.to_json()) | change))


@pytest.mark.parametrize("text", ["[]", "1", '"recipe"', "null", "{}", "", "{"])
def test_json_that_is_no_recipe_is_refused(text):
    with pytest.raises((ValueError, TypeError, KeyError)):
        Recipe.from_json(text)


@given(st.builds(Tap, NAMES, st.sampled_from(["avg", "grid:4", "avg+max", "map"])))
def test_a_tap_survives_its_name(tap):
    assert Tap.parse(tap.name) == tap


@pytest.mark.parametrize("text", ["", ":avg", "layer1:", "a/b", "layer1@1", "layer1:max@1"])
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


def test_a_map_is_the_primary_tap_only_where_there_is_nothing_else():
    taps = (Tap("layer1"), Tap("layer4", "map"), Tap("penultimate", "map"))
    assert [tap.is_map for tap in taps] == [False, True, True]
    assert dataclasses.replace(RECIPE, taps=taps).primary == Tap("layer1")
    assert dataclasses.replace(RECIPE, taps=taps[1:]).primary == Tap("penultimate", "map")


def test_every_view_holds_every_tap_the_centre_first():
    recipe = dataclasses.replace(RECIPE, taps=(Tap("layer3", "map"), Tap("penultimate")), views=3)
    assert recipe.layers == [
        "layer3:map", "penultimate", "layer3:map@1", "penultimate@1", "layer3:map@2", "penultimate@2",
    ]  # fmt: skip
    assert dataclasses.replace(recipe, views=1).layers == ["layer3:map", "penultimate"]
