import os
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from tiny_features import blobs, tiny_recipe

from classify.answering import PredictSpec, open_run
from classify.deployed import Bundle
from classify.predict import predict, records_of
from classify.sklearn_joblib import load_joblib, with_head, write_joblib
from extract.errors import BundleError, FitError
from extract.progress import Silent
from tests.tiny_bundle import make_run

CLASSES = ["cat", "dog", "eel"]


def linear(n_classes: int, transform: str = "none") -> Bundle:
    rng = np.random.default_rng(n_classes)
    arrays = {"mean": rng.normal(size=7), "scale": rng.random(7) + 0.1}
    arrays["scale"][2] = np.inf
    arrays |= {"coef": rng.normal(size=(n_classes, 7)), "intercept": rng.normal(size=n_classes)}
    recipe, classes = tiny_recipe(["penultimate"]), CLASSES[:n_classes]
    return Bundle(recipe, ("penultimate",), transform, "logistic", "linear", {}, classes, 0.7, arrays)


@pytest.mark.parametrize("transform", ["none", "std", "l2", "pow", "pcaw"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_pipeline_answers_as_the_bundle(tmp_path, n_classes, transform):
    bundle = linear(n_classes, transform)
    write_joblib(bundle, tmp_path / "head.joblib")
    model = load_joblib(tmp_path / "head.joblib", trust=True)
    X = blobs(np.arange(20) % n_classes, 7).astype(np.float64)
    expected = bundle.probabilities({"penultimate": X})
    assert model.predict_proba(X) == pytest.approx(expected, abs=1e-9)
    assert model.predict(X).tolist() == [bundle.classes[code] for code in expected.argmax(axis=1)]
    given = with_head(bundle, model, "here").probabilities({"penultimate": X})
    assert given == pytest.approx(expected, abs=1e-5)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_of_a_file_is_run_without_trust(tmp_path):
    joblib.dump(Canary(tmp_path / "canary"), tmp_path / "head.joblib")
    with pytest.raises(BundleError, match=r"can run anything when it is loaded.*--trust"):
        load_joblib(tmp_path / "head.joblib")
    assert not (tmp_path / "canary").exists()
    with pytest.raises(BundleError, match="no classifier"):  # what it returns is none; by then it has run
        load_joblib(tmp_path / "head.joblib", trust=True)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps(3)])
def test_what_holds_no_classifier_is_refused(tmp_path, content):
    (tmp_path / "head.joblib").write_bytes(content)
    with pytest.raises(BundleError, match="no classifier"):
        load_joblib(tmp_path / "head.joblib", trust=True)


@pytest.mark.parametrize("change", [{"kind": "knn"}, {"kind": "imported"}, {"task": "multi"}])
def test_heads_that_are_no_pipeline_are_refused(tmp_path, change):
    bundle = linear(3)
    for name, value in change.items():
        object.__setattr__(bundle, name, value)
    with pytest.raises(FitError, match="no pipeline of scikit-learn alone"):
        write_joblib(bundle, tmp_path / "head.joblib")
    assert list(tmp_path.iterdir()) == []


def test_a_head_of_other_classes_or_columns_is_refused():
    X, bundle = blobs(np.arange(20) % 3, 7), linear(3)
    with pytest.raises(BundleError, match="other classes"):
        with_head(bundle, LogisticRegression().fit(X, np.arange(20) % 3), "here")
    with pytest.raises(BundleError, match="takes 5 columns, and the run gives 7"):
        with_head(bundle, LogisticRegression().fit(X[:, :5], np.array(CLASSES)[np.arange(20) % 3]), "here")


def test_a_prediction_by_a_joblib_head_needs_trust(tmp_path):
    run = make_run(tmp_path, per_class=2)
    spec = PredictSpec(str(run), device="cpu", workers=1)
    write_joblib(open_run(spec)[0], run / "head.joblib")
    asked = {"head": run / "head.joblib", "device": "cpu", "workers": 1}
    with pytest.raises(BundleError, match="--trust"):
        open_run(PredictSpec(str(run), **asked))
    records = records_of((str(tmp_path / "data"),))
    own, other = (list(predict(each, records, Silent())) for each in (spec, PredictSpec(str(run), trust=True, **asked)))
    assert [each["label"] for each in other] == [each["label"] for each in own]
    assert [each["probability"] for each in other] == pytest.approx([each["probability"] for each in own], abs=1e-5)
