import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from tiny_features import blobs

from classify.estimators import load_model, store_model
from classify.scoring import model_scores, signed_root_unit
from extract.errors import BundleError, FitError

pytest.importorskip("skops", reason='needs the extra: pip install "offshelf[any-head]"')

Y = np.arange(60) % 3
X = blobs(Y, 5).astype(np.float64)


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        RandomForestClassifier(5, random_state=0),
        ExtraTreesClassifier(5, random_state=0),
        AdaBoostClassifier(n_estimators=3, random_state=0),
        DecisionTreeClassifier(random_state=0),
        GaussianNB(),
        SVC(),
        Perceptron(),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_is_read_scores_as_what_was_written(model):
    model.fit(X, Y)
    again = load_model(store_model(model, 5), 5, 3, "here")
    assert type(again) is type(model)
    assert (model_scores(again, X) == model_scores(model, X)).all()
    assert (model_scores(model, X).argmax(axis=1) == model.predict(X)).all()


def test_two_classes_of_a_margin_have_a_column_each():
    model = SVC().fit(X[Y < 2], Y[Y < 2])
    found = model_scores(model, X)
    assert found[:, 1] - found[:, 0] == pytest.approx(model.decision_function(X))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (make_pipeline(FunctionTransformer(signed_root_unit), LogisticRegression()), "signed_root_unit"),
        (MLPClassifier((4,), max_iter=400, tol=1e-2, random_state=0), "AdamOptimizer"),
        (GradientBoostingClassifier(n_estimators=2), "trees in a GradientBoostingClassifier"),
        (BaggingClassifier(n_estimators=2, max_features=0.5, random_state=0), "an estimator of other than 5 columns"),
    ],
)
def test_what_skops_does_not_trust_is_refused_before_it_is_written(model, said):
    with pytest.raises(FitError, match=rf"cannot be kept in a bundle: it holds .*{said}.*Take a head of ours"):
        store_model(model.fit(X, Y), 5)


def test_without_skops_the_extra_is_named(monkeypatch):
    data = store_model(GaussianNB().fit(X, Y), 5)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    monkeypatch.setitem(sys.modules, "skops", None)
    for error, call in (
        (FitError, lambda: store_model(GaussianNB(), 5)),
        (BundleError, lambda: load_model(data, 5, 3, "")),
    ):
        with pytest.raises(error, match=r'not installed.*pip install "offshelf\[any-head\]"'):
            call()


def test_classes_are_the_codes_of_the_bundle():
    data = store_model(GaussianNB().fit(X, np.array(["a", "b", "c"])[Y]), 5)
    with pytest.raises(BundleError, match="classes are not 0 to 2"):
        load_model(data, 5, 3, "here")
    with pytest.raises(BundleError, match="classes are not 0 to 3"):
        load_model(store_model(GaussianNB().fit(X, Y), 5), 5, 4, "here")


def test_a_transformer_is_no_head():
    with pytest.raises(BundleError, match="no classifier of scikit-learn"):
        load_model(store_model(StandardScaler().fit(X), 5), 5, 3, "here")


def rewritten(data: bytes, change: Callable[[dict[str, Any]], Any], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a skops file with another outline."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            outline = json.loads(old.read(name)) if name == "schema.json" else {}
            new.writestr(name, json.dumps(change(outline) or outline) if outline else old.read(name))
    return out.getvalue()


def node(loader: str, module: str, name: str, **known: Any) -> dict[str, Any]:
    return {"__loader__": loader, "__module__": module, "__class__": name, "__id__": 1, **known}


def first_attribute(value: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Put a node in the place of the estimator's attribute `priors`."""

    def change(outline: dict[str, Any]) -> None:
        assert "priors" in outline["content"]["content"]
        outline["content"]["content"]["priors"] = value

    return change


EMPTY = node("TupleNode", "builtins", "tuple", content=[])


@pytest.mark.parametrize(
    "value",
    [
        node("FunctionNode", "os", "mkdir", content={}),
        node("FunctionNode", "numpy", "fromfile"),
        node("TypeNode", "subprocess", "Popen"),
        node("ConstructorFromReduceNode", "subprocess", "Popen", content=EMPTY),
        node("OperatorFuncNode", "operator", "call", attrs=EMPTY),
        node("OperatorFuncNode", "sklearn", "call", attrs=EMPTY),
        node("MethodNode", "sklearn.naive_bayes", "GaussianNB", content={"func": "fit", "obj": EMPTY}),
        node("PartialNode", "functools", "partial", content={}),
        node("LossNode", "antigravity", "geohash", content=EMPTY, __reduce__={"args": EMPTY}),
        node("ObjectNode", "classify.bundle", "Bundle"),
        node("JsonNode", "os", "str", content="1", is_json=True),
    ],
    ids=lambda value: f"{value['__loader__']}-{value['__module__']}",
)
def test_a_name_of_something_else_is_refused_before_it_is_imported(value):
    data = rewritten(store_model(GaussianNB().fit(X, Y), 5), first_attribute(value))
    with pytest.raises(BundleError, match=f"it holds {value['__module__']}.{value['__class__']}"):
        load_model(data, 5, 3, "here")
    assert "antigravity" not in sys.modules


def test_a_type_of_sklearn_that_skops_does_not_trust_is_refused():
    value = node("ObjectNode", "sklearn.utils._bunch", "Bunch", content=node("DictNode", "builtins", "dict"))
    value["content"] |= {"content": {}, "key_types": node("ListNode", "builtins", "list", content=[])}
    data = rewritten(store_model(GaussianNB().fit(X, Y), 5), first_attribute(value))
    with pytest.raises(BundleError, match=r"sklearn\.utils\._bunch\.Bunch"):
        load_model(data, 5, 3, "here")


def packed(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(name, content)
    return out.getvalue()


def giant_array(data: bytes) -> bytes:
    """Say in an array's header that it has a million million rows."""
    out = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) if name == "schema.json" else array.getvalue())
    return out.getvalue()


def open_header(data: bytes) -> bytes:
    """Take the closing bracket away from the header of every array."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) if name == "schema.json" else old.read(name).replace(b"}", b" ", 1))
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: pickle.dumps({}), "not a zip"),
        (lambda data: b"", "not a zip"),
        (lambda data: data[: len(data) // 2], "not a zip"),
        (lambda data: packed("../evil.npy", b""), "not a head"),
        (lambda data: packed("evil.bin", b"x"), "the file 'evil.bin'"),
        (lambda data: packed("schema.json", b"[" * 100_000), "not a head"),
        (lambda data: packed("schema.json", b"{}"), "not a head"),
        (lambda data: rewritten(data, lambda outline: None, zipfile.ZIP_DEFLATED), "the file"),
        (lambda data: rewritten(data, lambda outline: outline.update(protocol="x")), "not a head"),
        (giant_array, "not a head"),
        (open_header, "not a head"),
    ],
)
def test_what_is_no_stored_head_is_refused(change, said):
    with pytest.raises(BundleError, match=said):
        load_model(change(store_model(GaussianNB().fit(X, Y), 5)), 5, 3, "here")
