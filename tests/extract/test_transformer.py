"""The transformer in scikit-learn's hands. What its checks feed are numbers, and so some of them cannot apply."""

import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from extract import FeatureExtractor, extract_features, features, loader
from extract.errors import BackboneError, ImageError, OptionError
from tests.faults.storage import InProcess
from tests.tiny import picture, put

LAYERS = ("layer1", "penultimate")


@pytest.fixture(autouse=True)
def decoded_here(monkeypatch, tmp_path):
    monkeypatch.setattr(loader, "Decoder", InProcess)
    monkeypatch.chdir(tmp_path)  # the checks of scikit-learn name no cache


@pytest.fixture
def extractor(tmp_path) -> FeatureExtractor:
    return FeatureExtractor("builtin", layers=LAYERS, cache=tmp_path / "cache", device="cpu")


@pytest.fixture
def paths(tmp_path) -> list[str]:
    return [str(put(tmp_path / f"{seed}.png", seed)) for seed in range(6)]


class Checked(FeatureExtractor):
    """Says that it takes a table, as a column of paths is one: otherwise nothing at all would be checked."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


NUMBERS = "it feeds rows of numbers, which are no images"
NOT_APPLICABLE = dict.fromkeys(
    (
        "check_complex_data",
        "check_dict_unchanged",
        "check_dont_overwrite_parameters",
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_empty_data_messages",
        "check_estimators_fit_returns_self",
        "check_estimators_nan_inf",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_fit2d_1feature",
        "check_fit2d_1sample",
        "check_fit2d_predict1d",
        "check_fit_check_is_fitted",
        "check_fit_idempotent",
        "check_fit_score_takes_y",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_n_features_in",
        "check_n_features_in_after_fitting",
        "check_pipeline_consistency",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
        "check_transformer_data_not_an_array",
        "check_transformer_general",
    ),
    NUMBERS,
)


@parametrize_with_checks([Checked("builtin")], expected_failed_checks=lambda _: NOT_APPLICABLE)
def test_the_checks_of_scikit_learn_pass_where_they_apply(estimator, check):
    check(estimator)


def test_it_gives_what_the_function_gives(extractor, paths, tmp_path):
    rows = extractor.fit(paths).transform(paths)
    expected, _ = extract_features(paths, "builtin", LAYERS, cache=tmp_path / "cache")
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.float32
    assert (extractor.layers_, extractor.widths_) == (["layer1", "penultimate"], [32, 128])


def test_fitting_learns_nothing_from_the_images(extractor, paths):
    first = extractor.fit(paths[:2]).transform(paths[2:])
    second = extractor.fit(paths[2:], ["cat"] * 4).transform(paths[2:])
    np.testing.assert_array_equal(first, second)


def test_order_and_company_change_no_row(extractor, paths):
    whole = extractor.fit(paths).transform(paths)
    np.testing.assert_array_equal(extractor.transform(paths[::-1]), whole[::-1])
    np.testing.assert_array_equal(extractor.transform(paths[3:4]), whole[3:4])


@pytest.mark.parametrize("of", [list, np.array, pd.Series], ids=["list", "array", "series"])
def test_paths_come_in_many_forms_and_pixels_too(extractor, paths, of):
    expected = extractor.fit(paths).transform(paths)
    np.testing.assert_array_equal(extractor.transform(of(paths)), expected)
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.testing.assert_allclose(extractor.transform(pixels), expected, rtol=1e-5, atol=1e-6)


def test_a_column_of_paths_beside_columns_of_numbers(extractor, paths):
    table = pd.DataFrame({"path": paths, "age": range(6)})
    both = ColumnTransformer([("image", extractor, ["path"]), ("age", "passthrough", ["age"])])
    found = both.set_output(transform="pandas").fit_transform(table)
    assert found.shape == (6, 32 + 128 + 1)
    assert list(found.columns[[0, 32, -1]]) == ["image__layer1_0", "image__penultimate_0", "age__age"]


def test_the_names_of_the_numbers(extractor, paths):
    names = extractor.fit(paths).get_feature_names_out()
    assert (len(names), names[0], names[31], names[32]) == (160, "layer1_0", "layer1_31", "penultimate_0")


def test_a_pipeline_searches_over_layers_and_computes_each_image_once_for_each(extractor, paths, monkeypatch):
    computed, plain = [], features.compute

    def counting(job, plan, stored):
        computed.append(plan.computed)
        return plain(job, plan, stored)

    monkeypatch.setattr(features, "compute", counting)
    model = make_pipeline(extractor, StandardScaler(), LogisticRegression())
    grid = {"featureextractor__layers": [("layer1",), ("penultimate",)], "logisticregression__C": [0.1, 1.0]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(paths, ["cat", "dog"] * 3)
    assert sum(computed) == 2 * len(paths)
    assert search.predict(paths).shape == (6,)
    assert search.best_params_["featureextractor__layers"] in [("layer1",), ("penultimate",)]


def test_it_is_cloned_and_travels_without_the_network(extractor, paths):
    rows = extractor.fit(paths).transform(paths)
    twin = clone(extractor)
    assert twin.get_params() == extractor.get_params()
    with pytest.raises(NotFittedError):
        twin.transform(paths)
    data = pickle.dumps(extractor)
    assert len(data) < 2000
    np.testing.assert_array_equal(pickle.loads(data).transform(paths), rows)  # noqa: S301 our own


def test_bad_images_raise_or_become_nan(extractor, paths, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match="1 of 2 images have no features"):
        extractor.fit(paths).transform([paths[0], str(broken)])
    rows = extractor.set_params(errors="nan").transform([paths[0], str(broken)])
    assert np.isnan(rows).all(axis=1).tolist() == [False, True]


def test_options_are_checked_by_fit_and_not_before(paths):
    strange = FeatureExtractor("builtin", errors="skip")
    with pytest.raises(OptionError, match="'skip'"):
        strange.fit(paths)


def test_other_weights_than_those_of_fit_are_refused(extractor, paths):
    extractor.fit(paths)
    extractor.set_params(weights="none")
    with pytest.raises(BackboneError, match="not those of fit"):
        extractor.transform(paths)


def test_numbers_are_refused_as_scikit_learn_would(extractor):
    with pytest.raises(ValueError, match="of float64"):
        extractor.fit(np.zeros((3, 4)))


def test_pictures_of_pillow_are_taken_too(extractor):
    images = [picture(1), picture(2)]
    assert extractor.fit(images).transform(images).shape == (2, 160)
