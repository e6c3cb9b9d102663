from dataclasses import replace

import pytest

from classify.finetune.again import beside, extraction_again
from extract.run import extract
from extract.spec import NAME, BackboneSpec, ExtractSpec
from extract.store.reader import FeatureSet
from tests.tiny import assert_same_rows, features_of, rows_of, tiny_folder, tiny_spec

SIZES = (("resize_size", 40), ("crop_size", 36), ("interpolation", "bicubic"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[ExtractSpec, FeatureSet]:
    """Features of an extraction of which hardly anything is the default."""
    folder = tmp_path_factory.mktemp("again")
    backbone = BackboneSpec("builtin", "none", seed=3, overrides=SIZES)
    known = {"backbone": backbone, "store": "float16", "decoder": "scaled", "taps": ("layer1:gem", "layer2:grid:2")}
    spec = tiny_spec(tiny_folder(folder / "photos"), folder / "cache", **known)
    return spec, features_of(extract(spec))


def test_the_same_taps_once_more_are_the_same_rows_under_another_name(made):
    spec, features = made
    again = extraction_again(features, spec.data, None, "-more")
    done = features_of(extract(replace(again, device="cpu", workers=2)))
    assert done.name == features.name.replace("photos/", "photos-more/")  # of the same key
    assert done.folder.parent.parent == features.folder.parent.parent
    for layer in features.layers:
        assert_same_rows(rows_of(done, layer), rows_of(features, layer))


def test_all_that_tells_how_images_are_looked_at_is_that_of_the_features(made):
    spec, features = made
    again = replace(extraction_again(features, spec.data, None, "-more"), taps=("layer1",), store="float32")
    recipe = features_of(extract(replace(again, device="cpu", workers=2))).recipe
    assert [tap.name for tap in recipe.taps] == ["layer1"]
    for name in ("model", "preprocessing", "decoder", "precision", "tf32"):
        assert getattr(recipe, name) == getattr(features.recipe, name)


def test_a_long_name_makes_room_for_what_tells_it_apart(made, tmp_path):
    _, features = made
    assert beside(features, "-more") == "photos-more"
    folder = tmp_path / ("a" * 100) / features.folder.name
    features.folder.parent.rename(folder.parent)
    try:
        name = beside(FeatureSet(folder / "features.h5"), "-more")
        assert name == "a" * 95 + "-more"
        assert NAME.fullmatch(name)
    finally:
        folder.parent.rename(features.folder.parent)
