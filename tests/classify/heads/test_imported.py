import sys
import types

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from tiny_features import blobs

from classify.heads import converged, find_head, imported
from classify.scoring import ROWWISE, model_scores, prepare
from extract.errors import FitError, OptionError

FOREST = "sklearn.ensemble.RandomForestClassifier"


def easy(n_classes=3):
    y = np.arange(60) % n_classes
    return blobs(y, 6).astype(np.float64), y


@pytest.mark.parametrize(
    "path",
    [
        FOREST,
        "sklearn.linear_model.LogisticRegression",
        "sklearn.svm.SVC",
        "sklearn.naive_bayes.GaussianNB",
        "sklearn.ensemble.HistGradientBoostingClassifier",
        "sklearn.linear_model.Perceptron",
    ],
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_any_classifier_scores_every_class_as_it_predicts(path, n_classes):
    X, y = easy(n_classes)
    head = imported(path)
    pipeline = head.build(head.values(60)[0], 0).fit(X, y)
    scores = head.scores(pipeline, X)
    assert converged(pipeline)
    assert scores.shape == (60, n_classes)
    assert np.isfinite(scores).all()
    assert (scores.argmax(axis=1) == pipeline.predict(X)).all()


@pytest.mark.parametrize("transform", ["std", "l2", "pow", "pcaw", "none"])
def test_arrays_and_the_estimator_score_as_the_pipeline_does(transform):
    X, y = easy()
    X[:, 3] = 2.0  # a feature that never changes
    head = imported("sklearn.naive_bayes.GaussianNB")
    pipeline = head.build({}, 0, transform=transform).fit(X, y)
    arrays = head.arrays(pipeline)
    assert all(np.isfinite(array).all() for array in arrays.values())
    scores = model_scores(head.estimator(pipeline), prepare(arrays, ROWWISE[transform](X)))
    assert scores == pytest.approx(head.scores(pipeline, X))


def test_a_grid_over_all_parameters():
    head = imported(FOREST, {"n_estimators": [3, 5], "max_depth": [None, 2]})
    assert len(head.values(10)) == 4
    value = head.values(10)[1]
    assert head.params(value) == value == {"n_estimators": 3, "max_depth": 2}
    model = head.estimator(head.build(value, 7))
    assert (model.n_estimators, model.max_depth, model.random_state) == (3, 2, 7)
    assert isinstance(model, RandomForestClassifier)
    assert head.extend(head.values(10), value) == []
    assert not head.at_limit(head.values(10), value)


def test_a_seed_of_the_users_own_is_kept():
    head = imported(FOREST, {"random_state": [3]})
    assert head.estimator(head.build(head.values(10)[0], 7)).random_state == 3


def test_weights_of_classes_where_the_class_has_them():
    assert imported(FOREST).build({}, 0, class_weight="balanced")[-1].class_weight == "balanced"
    for head in (imported("sklearn.naive_bayes.GaussianNB"), imported(FOREST, {"class_weight": [None]})):
        with pytest.raises(OptionError, match="cannot weigh classes"):
            head.build(head.values(9)[0], 0, class_weight="balanced")


class Greedy(ClassifierMixin, BaseEstimator):
    """Takes all cores unless it is told otherwise, and scores one class too few."""

    def __init__(self, n_jobs=None, options=None):
        self.n_jobs, self.options = n_jobs, options

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.zeros(len(X), dtype=int)

    def decision_function(self, X):
        return np.zeros((len(X), 1))


@pytest.fixture
def theirs(monkeypatch):
    module = types.ModuleType("theirs")
    module.Greedy = type("Greedy", (Greedy,), {"__module__": "theirs"})
    monkeypatch.setitem(sys.modules, "theirs", module)
    return module


def test_others_are_kept_to_one_core(theirs):
    assert imported("theirs.Greedy").build({}, 0)[-1].n_jobs == 1
    assert imported("theirs.Greedy", {"n_jobs": [2]}).build({"n_jobs": 2}, 0)[-1].n_jobs == 2
    assert imported(FOREST).build({}, 0)[-1].n_jobs is None


def test_scores_of_an_odd_shape_are_an_error(theirs):
    X, y = easy()
    head = imported("theirs.Greedy")
    with pytest.raises(FitError, match=r"Greedy gives scores of the shape \(60, 1\)"):
        head.scores(head.build({}, 0).fit(X, y), X)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("RandomForestClassifier", "no import path"),
        ("sklearn..ensemble", "no import path"),
        ("sklearn.ensembel.RandomForestClassifier", "no module 'sklearn.ensembel' .*'ensemble'"),
        ("sklaern.ensemble.RandomForestClassifier", "no module 'sklaern' .*'sklearn'"),
        ("sklearn.ensemble.RandomForestClasifier", "has no 'RandomForestClasifier' .*'RandomForestClassifier'"),
        ("sklearn.ensemble.RandomForestRegressor", "a regressor and no classifier"),
        ("sklearn.cluster.KMeans", "a clusterer and no classifier"),
        ("sklearn.ensemble.IsolationForest", "an outlier detector and no classifier"),
        ("sklearn.preprocessing.StandardScaler", "a transformer and no classifier"),
        ("sklearn.base.clone", "a function and no class"),
        ("sklearn.ensemble", "a module and no class"),
        ("collections.OrderedDict", "no scikit-learn estimator"),
        ("sklearn.ensemble.VotingClassifier", "cannot make"),
    ],
)
def test_what_is_no_classifier_is_named(path, said):
    with pytest.raises(OptionError, match=said):
        imported(path)


def test_a_classifier_must_score(theirs):
    theirs.Silent = type("Silent", (Greedy,), {"decision_function": property(None)})
    with pytest.raises(OptionError, match="neither predict_proba nor decision_function"):
        imported("theirs.Silent")


@pytest.mark.parametrize(
    ("error", "said"), [("import nothing_of_the_kind", "needs nothing_of_the_kind"), ("1 / 0", "division")]
)
def test_a_module_that_cannot_be_imported_says_why(tmp_path, monkeypatch, error, said):
    (tmp_path / "broken_module.py").write_text(error)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OptionError, match=said):
        imported("broken_module.Any")


def test_an_unknown_parameter_is_named():
    with pytest.raises(OptionError, match=r"no parameter 'n_estimator' \(nearest: 'n_estimators'"):
        imported(FOREST, {"n_estimator": [3]})


def test_a_value_of_the_wrong_kind_is_named():
    with pytest.raises(OptionError, match=r"'n_estimators' parameter .* must be an int"):
        imported(FOREST, {"n_estimators": ["many"]})


def test_heads_are_found_by_name_or_by_path():
    assert find_head("ridge").name == "ridge"
    assert find_head(FOREST, {"n_estimators": [3]}).values(9) == [{"n_estimators": 3}]
    with pytest.raises(OptionError, match=r"no head 'logistics' \(nearest: 'logistic'\)"):
        find_head("logistics")
    with pytest.raises(OptionError, match="parameters mean nothing to the head 'ridge'"):
        find_head("ridge", {"alpha": [1]})
