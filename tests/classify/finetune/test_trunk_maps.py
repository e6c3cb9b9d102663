from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from classify.finetune import maps
from classify.finetune.map_examples import MapExamples
from classify.finetune.maps import MapSpec, map_rows, trunk_maps
from extract.backbones import read_state
from extract.channel import Crew
from extract.errors import FitError, StoreError, TapError
from extract.forward import normalise
from extract.loader import Loader, Sight
from extract.parts import TAIL, TRUNK, Parts, open_parts
from extract.run import extract
from extract.sources import open_source
from extract.spec import BackboneSpec
from extract.store import files
from extract.store.reader import FeatureSet
from tests.tiny import features_of, files_in, in_all_views, put, tiny_folder, tiny_spec

CUT = "layer2"
HALF = 2**-10
"""How far float16 is off, as a share of the number."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, FeatureSet]:
    """A folder of images and the features of it; nobody may change them."""
    folder = tmp_path_factory.mktemp("maps")
    data = tiny_folder(folder / "photos", per_class=4)
    put(data / "dog" / "twin.png", 0)  # the same as cat/00.png
    return data, features_of(extract(tiny_spec(data, folder / "cache")))


def wanted(data: Path, **changes) -> MapSpec:
    return MapSpec(**{"cut": CUT, "data": str(data), "device": "cpu", "workers": 2, **changes})


def parts_of(features: FeatureSet) -> Parts:
    return open_parts(features.recipe, read_state(features.weights_path), tap="penultimate", until=CUT)


def trunk_says(data: Path, features: FeatureSet, cached: FeatureSet) -> np.ndarray:
    """The maps of all images in all views by the trunk itself, run live: (n, V, C, H, W)."""
    views, records = cached.views, open_source(str(data)).records
    with Loader(Sight.of(cached.recipe), workers=1, batch_size=len(records)) as given, Crew() as crew:
        [batch] = given.run(records, crew)
        images = normalise(batch.buffer.pixels.clone(), features.recipe.preprocessing)
    with torch.no_grad():
        out = parts_of(features).trunk.run(images)[TRUNK]
    return out.numpy().reshape(len(records), views, *out.shape[1:])


@pytest.mark.parametrize(("store", "tolerance"), [("float32", 1e-5), ("float16", HALF)])
def test_cached_maps_are_what_the_trunk_says_in_every_view(made, store, tolerance):
    data, features = made
    cached = trunk_maps(features, wanted(data, views=4, store=store))
    assert cached.recipe.store == store
    live = trunk_says(data, features, cached)
    rows = map_rows(cached, features, np.arange(len(features)))
    got = in_all_views(cached, wanted(data).layer, rows)
    np.testing.assert_allclose(got, live, rtol=tolerance, atol=tolerance * np.abs(live).max())
    assert not np.allclose(got[:, 0], got[:, 1])


def test_the_tail_makes_the_cached_features_of_cached_maps(made):
    data, features = made
    cached = trunk_maps(features, wanted(data, store="float32"))
    rows = map_rows(cached, features, np.arange(len(features)))
    examples = MapExamples(cached, wanted(data).layer, rows, np.zeros(len(rows)))
    [batch] = examples.plain(np.arange(len(rows)), batch_size=50)
    with torch.no_grad():
        made_anew = parts_of(features).tail.run(batch.x)[TAIL].numpy()
    expected = features.read("penultimate")
    np.testing.assert_allclose(made_anew, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_maps_lie_beside_the_features_and_are_made_once(made):
    data, features = made
    first = trunk_maps(features, wanted(data, views=2))
    assert first.folder.parent == features.folder.parent.with_name("photos-maps")
    before = files_in(first.folder)
    again = trunk_maps(features, wanted(data, views=2))
    assert again.digest == first.digest
    assert files_in(first.folder) == before
    assert not trunk_maps(features, wanted(data, views=2, flips=False)).recipe.view_flips


def test_what_the_features_are_of_is_what_the_maps_are_of(tmp_path):
    data = tiny_folder(tmp_path / "photos")
    looks = BackboneSpec("builtin", "none", 3, (("resize_size", 30), ("crop_size", 24), ("interpolation", "bicubic")))
    features = features_of(extract(tiny_spec(data, tmp_path / "cache", name="mine", backbone=looks, decoder="scaled")))
    recipe = trunk_maps(features, wanted(data)).recipe
    assert recipe.preprocessing == features.recipe.preprocessing
    assert recipe.preprocessing.crop_size == 24
    assert (recipe.decoder, recipe.precision, recipe.model) == (
        features.recipe.decoder,
        features.recipe.precision,
        features.recipe.model,
    )


def test_maps_are_found_by_content(tmp_path, made):
    """Images may have been renamed, and others have come: what counts is what is in them."""
    data, features = made
    moved = tmp_path / "moved"
    for number, path in enumerate(sorted(data.rglob("*.*"))):
        target = moved / path.parent.name / f"{99 - number}{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    put(moved / "cat" / "0-new.png", 77)
    cached = trunk_maps(features, wanted(moved))
    rows = map_rows(cached, features, np.array([3, 0, 8]))
    assert [cached.sha256[row].tobytes() for row in rows] == [features.sha256[row].tobytes() for row in (3, 0, 8)]


def test_an_image_that_is_gone_or_changed_has_no_map(tmp_path):
    data = tiny_folder(tmp_path / "photos")
    features = features_of(extract(tiny_spec(data, tmp_path / "cache")))
    (data / features.ids[3]).unlink()
    put(data / features.ids[4], 999)
    (data / features.ids[5]).write_bytes(b"no image")
    cached = trunk_maps(features, wanted(data))
    assert len(map_rows(cached, features, np.array([0, 1, 2, 6, 7]))) == 5
    for lost in (3, 4, 5):
        with pytest.raises(FitError, match="1 of 2 images that have features are gone, were changed or") as error:
            map_rows(cached, features, np.array([0, lost]))
        assert error.value.where == features.ids[lost]


def test_maps_of_another_network_are_refused(made, tmp_path):
    data, features = made
    cached = trunk_maps(features, wanted(data))
    other = features_of(extract(tiny_spec(data, tmp_path, backbone=BackboneSpec("builtin", "none", 5))))
    maps._check_trunk(features, cached, CUT)
    for wrong in (other, replace_recipe(features, precision="bf16"), replace_recipe(features, decoder="another")):
        with pytest.raises(FitError, match="not those of the network"):
            maps._check_trunk(wrong, cached, CUT)


def replace_recipe(features: FeatureSet, **changes) -> FeatureSet:
    changed = FeatureSet(features.path)
    changed.recipe = replace(features.recipe, **changes)
    return changed


def test_weights_that_are_not_those_of_the_features_are_refused_before_any_work(tmp_path):
    data = tiny_folder(tmp_path / "photos")
    features = features_of(extract(tiny_spec(data, tmp_path / "cache")))
    features.weights_path.write_bytes(b"damaged")
    with pytest.raises(StoreError, match="weights are missing or damaged"):
        trunk_maps(features, wanted(data))


def test_a_full_disk_is_said_with_what_is_needed(made, monkeypatch):
    data, features = made
    monkeypatch.setattr(files, "free_bytes", lambda _: 10)
    with pytest.raises(StoreError, match=r"8 rows take 0\.00 GB"):
        trunk_maps(features, wanted(data, views=7))


def test_a_cut_that_is_none_is_said_so(made):
    data, features = made
    with pytest.raises(TapError, match="layer9"):
        trunk_maps(features, wanted(data, cut="layer9"))
