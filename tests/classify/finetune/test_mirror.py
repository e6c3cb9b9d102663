from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classify.finetune import mirror
from classify.finetune.image_examples import ImageExamples
from classify.finetune.mirror import CACHED, COMPUTED, answers, chosen, mirror_test, mirrored
from classify.folds import Part
from classify.solvers import Softmax, out_of_fold
from classify.trials import Trial
from extract.errors import FitError
from extract.progress import Silent
from extract.run import extract
from extract.sources import open_source
from tests.classify.tiny_features import blobs, tiny_recipe
from tests.classify.tiny_task import candidate, tiny_task
from tests.tiny import features_of, tiny_folder, tiny_spec

Y = np.arange(120) % 3


def best(transform: str = "std") -> Trial:
    """The setting that is asked, as a search would have found it."""
    return Trial(candidate(blobs(Y, 6), transform), "logistic", {"C": 1.0}, Y, {}, 0.0)


def inputs_of(plain: np.ndarray, other: np.ndarray | None = None, groups: np.ndarray | None = None, **known):
    """A fit on rows of numbers, with those of the mirror images in the cache: training row i is row 2 i there."""
    task = tiny_task(Y, {"tap": plain}, groups, **known)
    rows = 2 * np.arange(len(Y))
    X = {"tap": np.repeat(plain, 2, axis=0), "tap@1": np.repeat(plain if other is None else other, 2, axis=0)}
    features = SimpleNamespace(views=2, recipe=tiny_recipe(["tap"]), read=lambda layer, at: X[layer][at])
    data = SimpleNamespace(train=Part(rows, Y, groups))
    return SimpleNamespace(task=task, features=features, data=data, solver=Softmax())


def test_where_a_mirror_changes_nothing_images_may_be_mirrored():
    found = mirror_test(inputs_of(blobs(Y, 6)), best(), [])
    assert found.flip
    assert found.n == 120
    assert found.accuracy == found.mirrored
    assert found.drop == {"value": 0, "low": 0, "high": 0}
    assert found.rows == CACHED
    assert found.as_dict()["drop"] == found.drop


@pytest.mark.parametrize("groups", [None, np.arange(120) // 4])
def test_where_a_mirror_makes_another_class_of_it_they_may_not(groups):
    plain = blobs(Y, 6)
    found = mirror_test(inputs_of(plain, np.roll(plain, 1, axis=0), groups), best(), [])
    assert not found.flip
    assert found.accuracy > 0.95
    assert found.mirrored < 0.05
    assert found.drop["value"] == pytest.approx(found.accuracy - found.mirrored)
    assert 0.9 < found.drop["low"] <= found.drop["value"] <= found.drop["high"]


def test_a_loss_that_may_be_chance_forbids_nothing():
    plain = blobs(Y, 6)
    other = plain.copy()
    other[[0, 30]] = plain[[1, 31]]
    found = mirror_test(inputs_of(plain, other), best(), [])
    assert found.drop["value"] > mirror.HARM > found.drop["low"]
    assert found.flip


@pytest.mark.parametrize("transform", ["std", "l2"])
def test_answers_are_those_of_a_head_that_was_fitted_without_the_fold(transform):
    plain, other = blobs(Y, 6, distance=0.6), blobs(Y, 6, seed=1, distance=0.6)
    inputs = inputs_of(plain, other)
    splits = chosen(inputs.task)
    at = np.concatenate([test for _, test in splits])
    codes = answers(inputs, best(transform), splits, {"tap": other[at]})
    assert codes.shape == (2, 120)
    scores = out_of_fold(inputs.task, best(transform).candidate, {"C": 1.0}, Softmax())
    assert np.array_equal(codes[0], scores.argmax(axis=1)[at])
    if transform == "std":
        for train, test in splits:
            head = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, tol=1e-8, max_iter=1000))
            expected = head.fit(plain[train], Y[train]).predict(other[test])
            assert np.array_equal(codes[1][np.isin(at, test)], expected)


def test_no_more_images_are_looked_at_than_tell(monkeypatch):
    task = tiny_task(Y, {"tap": blobs(Y, 6)}, cv=4)
    for most, sizes in ((500, [30] * 4), (40, [30, 10]), (7, [7])):
        monkeypatch.setattr(mirror, "MOST", most)
        splits = chosen(task)
        assert [len(test) for _, test in splits] == sizes
        for (train, test), (fitted, held) in zip(splits, task.folds, strict=False):
            assert np.array_equal(train, fitted)
            assert set(test) <= set(held)


def test_of_very_many_images_some_are_fitted_on_of_every_class(monkeypatch):
    y = np.where(np.arange(120) < 3, np.arange(120), 3)
    task = tiny_task(np.sort(y), {"tap": blobs(y, 6)}, cv=2, groups=np.arange(120))
    for most in (20, 4, 2):
        monkeypatch.setattr(mirror, "FITTED", most)
        for (train, test), (fitted, _) in zip(chosen(task), task.folds, strict=True):
            classes = set(task.y[fitted])
            assert set(task.y[train]) == classes
            assert len(train) == max(most, len(classes))
            assert set(train) <= set(fitted)
            assert not set(train) & set(test)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images, their features, and those with the mirror image in the cache."""
    folder = tmp_path_factory.mktemp("mirror")
    data = tiny_folder(folder / "photos", per_class=6)
    plain, both = (features_of(extract(tiny_spec(data, folder / "cache", views=views))) for views in (1, 2))
    return data, plain, both


def test_features_that_are_computed_are_those_of_the_cached_view(photos):
    data, plain, both = photos
    rows, layers = np.array([7, 2, 3]), ("layer1", "penultimate")
    with ImageExamples(plain, open_source(str(data)).records, rows, np.zeros(3), workers=2) as examples:
        found = mirrored(plain, layers, examples, np.array([0, 1, 2]), Silent())
    for layer in layers:
        np.testing.assert_allclose(found[layer], both.read(f"{layer}@1", rows), rtol=1e-5, atol=1e-6)
        assert not np.allclose(found[layer], both.read(layer, rows), rtol=1e-3)


def test_what_the_cache_lacks_is_computed_of_the_training_images(photos):
    data, plain, both = photos
    rows, y = np.array([0, 2, 3, 4, 5, 6, 7, 8, 9, 11]), np.array([0] * 5 + [1] * 5)
    answered = []
    for features in (plain, both):
        task = tiny_task(y, {"penultimate": features.read("penultimate", rows)}, cv=2)
        inputs = SimpleNamespace(
            task=task, features=features, data=SimpleNamespace(train=Part(rows, y, None)), solver=Softmax()
        )
        trial = Trial(
            candidate(task.read(("penultimate",), "none").take(rows[:1]), "std", "penultimate"),
            "",
            {"C": 1.0},
            y,
            {},
            0.0,
        )
        answered.append(mirror_test(inputs, trial, open_source(str(data)).records, device="cpu", workers=2))
    assert [each.rows for each in answered] == [COMPUTED, CACHED]
    assert answered[0].drop == answered[1].drop
    (data / plain.ids[3]).unlink()
    inputs.features = plain
    with pytest.raises(FitError, match="not there any more"):
        mirror_test(inputs, trial, open_source(str(data)).records, device="cpu")
