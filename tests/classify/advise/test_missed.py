from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import pipeline
from classify.advise.depth import depth_profile
from classify.advise.missed import commands, held, missed
from classify.finetune.images import find_source
from classify.inputs import open_for_fit, read_inputs
from classify.spec import FitSpec
from extract.progress import Silent
from extract.recipe import Tap
from extract.spec import BackboneSpec
from extract.store import open_features
from tests.classify.finetune.tiny_story import SIDE_PX, extract_photos, write_photos
from tests.classify.tiny_task import tiny_task

TAPS = ("layer1:grid:2", "layer2:grid:2", "layer3")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ and features of them of the last layer alone, from fewer pixels than there are."""
    folder = tmp_path_factory.mktemp("missed")
    sizes = (("resize_size", SIDE_PX), ("crop_size", SIDE_PX - 4))
    backbone = BackboneSpec("builtin", "none", overrides=sizes)
    extract_photos(write_photos(folder / "photos"), folder / "cache", taps=("penultimate",), backbone=backbone)
    return folder


def answers(y: np.ndarray, *n_wrong: int) -> np.ndarray:
    """Answers of layers, (L, n), of which so many are wrong."""
    return np.stack([np.where(np.arange(len(y)) < n, 1 - y, y) for n in n_wrong])


def test_a_layer_is_missed_where_it_surely_does_better_than_all_that_were_extracted():
    y = np.tile([0, 1], 100)
    task = tiny_task(y, {"tap": np.zeros((200, 1))})
    found = missed(TAPS, [False, False, True], answers(y, 10, 20, 60), task)
    assert found is not None
    assert (found["layer"], found["over"], found["value"]) == (TAPS[0], TAPS[2], pytest.approx(0.25))
    assert 0 < found["low"] < 0.25 < found["high"]
    assert missed(TAPS, [True, False, True], answers(y, 10, 20, 60), task) is None
    assert missed(TAPS, [False, False, True], answers(y, 58, 59, 60), task) is None
    assert missed(TAPS, [True, True, True], answers(y, 10, 20, 60), task) is None


def test_a_layer_was_extracted_however_it_was_pooled(root):
    recipe = open_features("photos", root / "cache").recipe
    assert held(recipe, TAPS) == [False, False, True]
    as_map = replace(recipe, taps=(Tap("layer3", "map"),), nodes=recipe.nodes)
    assert held(as_map, TAPS) == [False, False, False]  # no head takes a map


def test_what_is_to_be_typed_makes_the_same_features_with_one_layer_more(root):
    spec = FitSpec("photos", cache=root / "cache", cv=3, jobs=1, duplicates="off", device="cpu", strategy="linear")
    features = open_features("photos", root / "cache")
    source = find_source(features, np.arange(len(features)), None, None)
    extraction, fit = commands(spec, features, source, "layer1:grid:2")
    result = CliRunner().invoke(pipeline.main, extraction[1:])
    assert result.exit_code == 0, result.output
    made = open_features("photos-taps", root / "cache")
    assert made.layers == ["layer1:grid:2", "penultimate"]
    assert replace(made.recipe, taps=features.recipe.taps, nodes=features.recipe.nodes) == features.recipe
    np.testing.assert_allclose(
        made.read("penultimate", np.arange(len(made))), features.read("penultimate", np.arange(len(made))), atol=1e-5
    )
    assert fit[:5] == ["offshelf", "fit", "photos-taps", "--strategy", "auto"]


def test_a_profile_says_what_to_type_where_a_layer_is_missed(root, monkeypatch):
    spec = FitSpec("photos", cache=root / "cache", cv=3, jobs=1, duplicates="off", device="cpu", strategy="linear")
    inputs = read_inputs(spec, open_for_fit(spec), Silent())
    source = find_source(inputs.features, inputs.data.train.rows, None, None)
    better = {"value": 0.1, "low": 0.05, "high": 0.2, "layer": "layer1:grid:11", "over": "layer3:grid:5"}
    asked = []
    monkeypatch.setattr("classify.advise.depth.missed", lambda *given: asked.append(given) or dict(better))
    found = depth_profile(spec, inputs, source, Silent())
    assert asked[0][:2] == ([tap.layer for tap in found.taps], [False, False, True])
    assert found.missed == better | {"commands": commands(spec, inputs.features, source, "layer1:grid:11")}
    assert found.as_dict()["missed"] == found.missed
