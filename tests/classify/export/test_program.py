from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import CLASSES, tiny_bundle, tiny_features

from classify.bundle import Bundle
from classify.export.program import HEADS, ROWWISE, SHARES, Program, signed_root_unit, unit
from classify.scoring import ROWWISE as PLAIN_ROWWISE
from classify.scoring import SCORERS
from classify.scoring import signed_root_unit as plain_root
from classify.scoring import unit as plain_unit
from extract.errors import ExportError
from extract.forward import Extractor, rebuild_extractor
from extract.store import FeatureSet


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> FeatureSet:
    return tiny_features(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def extractor(features) -> Extractor:
    return rebuild_extractor(features.recipe, features.weights_path, device="cpu")


@pytest.fixture(scope="module")
def pixels(extractor) -> np.ndarray:
    side = extractor.recipe.preprocessing.crop_size
    drawn = np.random.default_rng(0).integers(0, 256, (5, 3, side, side), np.uint8)
    drawn[0] = 0
    return drawn


def rows(n: int = 40, width: int = 160) -> np.ndarray:
    return np.abs(np.random.default_rng(1).normal(size=(n, width)))


def arrays_of(kind: str, bundle: Bundle) -> dict[str, np.ndarray]:
    if kind == "linear":
        return bundle.arrays
    if kind == "centroid":
        return {"centroids": plain_unit(rows(3))}
    return {"rows": rows().astype(np.float16), "codes": np.arange(40) % 3, "k": np.array(7)}


def answers(bundle: Bundle, extractor: Extractor, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the program says, and what the bundle says of the plain network's rows."""
    with torch.inference_mode():
        given = Program(bundle, extractor).eval()(torch.from_numpy(pixels)).numpy()
    return given, bundle.probabilities(extractor.exact(torch.from_numpy(pixels)))


def test_there_is_a_program_for_every_formula_of_a_bundle():
    assert HEADS.keys() == SCORERS.keys()
    assert ROWWISE.keys() == PLAIN_ROWWISE.keys()
    assert SHARES.keys() == {"single", "multi"}


@pytest.mark.parametrize("transform", ROWWISE)
@pytest.mark.parametrize("kind", HEADS)
def test_a_program_answers_as_the_bundle_does(features, extractor, pixels, kind, transform):
    bundle = tiny_bundle(features)
    bundle = replace(bundle, kind=kind, transform=transform, arrays=arrays_of(kind, bundle), temperature=2.0)
    given, expected = answers(bundle, extractor, pixels)
    assert given.dtype == np.float32
    assert given.shape == (5, len(CLASSES))
    np.testing.assert_allclose(given, expected, atol=2e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3


@pytest.mark.parametrize(
    "known", [{"layers": ("penultimate",)}, {"task": "multi", "label_thresholds": (0.5, 0.5, 0.5)}]
)
def test_one_layer_is_not_scaled_and_several_labels_stand_alone(features, extractor, pixels, known: dict[str, Any]):
    bundle = tiny_bundle(features)
    if "layers" in known:
        kept = {name: values[..., -128:] for name, values in bundle.arrays.items() if name != "intercept"}
        known["arrays"] = {**bundle.arrays, **kept}
    given, expected = answers(replace(bundle, **known), extractor, pixels)
    np.testing.assert_allclose(given, expected, atol=2e-5)
    if known.get("task") == "multi":
        assert (given.sum(axis=1) != 1).any()


def test_rows_are_rounded_where_the_runs_are(features, extractor, pixels):
    bundle = tiny_bundle(features)
    half = replace(extractor, recipe=replace(extractor.recipe, store="float16"))
    given, exact = answers(bundle, half, pixels)
    rounded = {name: X.astype(np.float16) for name, X in extractor.exact(torch.from_numpy(pixels)).items()}
    assert np.abs(given - bundle.probabilities(rounded)).max() < np.abs(given - exact).max() / 3


def test_a_feature_that_is_dropped_counts_for_nothing(features, extractor, pixels):
    bundle = tiny_bundle(features)
    scale = bundle.arrays["scale"].copy()
    scale[::2] = np.finfo(np.float64).max
    given, expected = answers(replace(bundle, arrays={**bundle.arrays, "scale": scale}), extractor, pixels)
    np.testing.assert_allclose(given, expected, atol=2e-5)


def test_zero_rows_stay_zero():
    X = np.array([[0.0, 0.0], [3.0, -4.0]])
    for ours, plain in ((unit, plain_unit), (signed_root_unit, plain_root)):
        np.testing.assert_allclose(ours(torch.from_numpy(X)).numpy(), plain(X))


def test_a_model_of_scikit_learns_is_refused_by_name(features, extractor):
    bundle = replace(tiny_bundle(features), kind="imported", head="sklearn.ensemble.RandomForestClassifier")
    with pytest.raises(ExportError, match=r"RandomForestClassifier is a model of scikit-learn's.*--head logistic"):
        Program(bundle, extractor)
