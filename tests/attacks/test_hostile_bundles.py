import hashlib
import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save
from sklearn.naive_bayes import GaussianNB

from classify import manifest
from classify.bundle import Bundle, write_bundle
from classify.conformal import fit_abstain, fit_conformal
from classify.openset import fit_open_set
from classify.predict import PredictSpec, predict
from classify.scoring import model_scores
from extract.errors import BundleError, OffshelfError
from extract.progress import Silent
from extract.run import extract
from extract.store import FeatureSet
from tests.tiny import features_of, tiny_folder, tiny_spec


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> FeatureSet:
    work = tmp_path_factory.mktemp("features")
    data = tiny_folder(work / "data", per_class=6)
    return features_of(extract(tiny_spec(data, work / "cache", taps=("penultimate",))))


def build(folder: Path, features: FeatureSet, kind: str, arrays: dict[str, np.ndarray], **known: Any) -> Path:
    """Write a bundle with every threshold there is: of two classes, on 128 columns."""
    blocks = {"penultimate": features.read("penultimate")}
    y = np.arange(12) % 2
    shares = np.where(y[:, None] == [0, 1], 0.8, 0.2)
    thresholds = {
        "conformal": fit_conformal(shares, y, 0.3),
        "abstain": fit_abstain(shares.max(axis=1), np.ones(12, dtype=bool), "accuracy", 0.9),
        "open_set": fit_open_set(blocks["penultimate"], y, None, n_seen=12),
    }
    bundle = Bundle(
        features.recipe, ("penultimate",), "std", kind, kind, {}, ["cat", "dog"], 1.0, arrays, **thresholds, **known
    )
    expected = model_scores(bundle.model, blocks["penultimate"]) if bundle.model else bundle.scores(blocks)
    write_bundle(folder, bundle, weights=features.weights_path, blocks=blocks, expected=expected)
    return folder


@pytest.fixture(scope="module")
def fitted(features, tmp_path_factory) -> Path:
    coef, plain = np.random.default_rng(0).normal(size=(2, 128)), {"mean": np.zeros(128), "scale": np.ones(128)}
    folder = tmp_path_factory.mktemp("linear") / "bundle"
    return build(folder, features, "linear", {**plain, "coef": coef, "intercept": np.zeros(2)})


@pytest.fixture(scope="module")
def imported(features, tmp_path_factory) -> Path:
    pytest.importorskip("skops", reason='needs the extra: pip install "offshelf[any-head]"')
    model = GaussianNB().fit(features.read("penultimate").astype(np.float64), np.arange(12) % 2)
    folder = tmp_path_factory.mktemp("imported") / "bundle"
    arrays = {"mean": np.zeros(128), "scale": np.ones(128)}
    return build(folder, features, "imported", arrays, model=model)


@pytest.fixture
def folder(fitted, tmp_path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "bundle"))


def put(folder: Path, name: str, data: bytes, **changes: object) -> None:
    """Replace a file of a bundle as its author could: the manifest's digest goes with it."""
    (folder / name).write_bytes(data)
    path = folder / "bundle.json"
    said = json.loads(path.read_text()) | changes
    said["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(said | {"sha256": manifest.manifest_digest(said)}))


def say(folder: Path, change: Callable[[dict], object]) -> None:
    """Change what a manifest says, as its author could."""
    path = folder / "bundle.json"
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said | {"sha256": manifest.manifest_digest(said)}))


def put_recipe(folder: Path, change: Callable[[dict], None]) -> None:
    value = json.loads((folder / "recipe.json").read_text())
    change(value)
    text = json.dumps(value, sort_keys=True)  # as the key of a recipe is made
    put(folder, "recipe.json", text.encode(), features_key=hashlib.sha256(text.encode()).hexdigest())


def refused(folder: Path) -> str:
    with pytest.raises(OffshelfError) as caught:
        predict(PredictSpec(str(folder), device="cpu"), (), Silent())
    assert isinstance(caught.value, BundleError), caught.value
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.remedy
    return str(caught.value)


class Canary:
    """Creates a folder when it is unpickled by anything that runs what a pickle says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_the_bundle_as_it_was_is_read(folder):
    assert list(predict(PredictSpec(str(folder), device="cpu"), (), Silent())) == []


@pytest.mark.parametrize("name", ["head.safetensors", "recipe.json", "open_set.safetensors", "examples.safetensors"])
def test_a_pickle_in_the_place_of_a_file_is_never_run(folder, tmp_path, name):
    put(folder, name, pickle.dumps(Canary(tmp_path / "canary")))
    assert "not a bundle of ours" in refused(folder)
    assert not (tmp_path / "canary").exists()


def test_a_pickle_in_the_place_of_an_imported_head_is_never_run(imported, tmp_path):
    folder = Path(shutil.copytree(imported, tmp_path / "bundle"))
    assert list(predict(PredictSpec(str(folder), device="cpu"), (), Silent())) == []
    put(folder, "head.skops", pickle.dumps(Canary(tmp_path / "canary")))
    assert "not a head of ours" in refused(folder)
    assert not (tmp_path / "canary").exists()


def test_an_imported_head_that_scores_otherwise_is_refused(imported, tmp_path):
    folder = Path(shutil.copytree(imported, tmp_path / "bundle"))
    arrays = load_file(folder / "head.safetensors")
    put(folder, "head.safetensors", save({**arrays, "proof_scores": arrays["proof_scores"] + 0.01}))
    assert "scores otherwise than when it was fitted (scikit-learn" in refused(folder)
    wide = {name: np.pad(a, ((0, 0),) * (a.ndim - 1) + ((0, 1),), mode="edge") for name, a in arrays.items()}
    put(folder, "head.safetensors", save({**wide, "proof_scores": arrays["proof_scores"]}))
    assert "reference rows" in refused(folder)
    say(folder, lambda said: said["thresholds"].update(open_set=None))
    say(folder, lambda said: [said["files"].pop(name) for name in ("open_set.safetensors", "examples.safetensors")])
    assert "does not score" in refused(folder)


def test_a_model_beside_a_head_that_needs_none_is_refused(folder):
    put(folder, "head.skops", b"PK")
    assert "a model where there is to be none" in refused(folder)


def test_an_array_that_no_formula_asks_for_is_refused(folder):
    arrays = load_file(folder / "head.safetensors")
    put(folder, "head.safetensors", save({**arrays, "components": np.ones((1 << 10, 128))}))
    assert "arrays" in refused(folder)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, -np.inf])
def test_a_scale_that_divides_by_nothing_is_refused(folder, scale):
    arrays = load_file(folder / "head.safetensors")
    put(folder, "head.safetensors", save({**arrays, "scale": np.full(128, scale)}))
    assert "scale" in refused(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"probabilities": np.full((5, 2), 0.5)}, "answers otherwise for its examples"),
        ({"probabilities": np.full((5, 2), np.nan)}, "no number"),
        ({"probabilities": np.full((5, 3), 0.5)}, "probabilities of examples of the shape"),
        ({"probabilities": np.full((0, 2), 0.5)}, "probabilities of examples of the shape"),
        ({"probabilities": np.zeros((1 << 20, 2))}, "probabilities of examples of the shape"),
        ({"probabilities": np.array(0.5)}, "probabilities of examples of the shape"),
        ({"probabilities": np.full((5, 2), 0.5, np.float32)}, "type float32"),
        ({"rows/penultimate": np.zeros((5, 127), np.float32)}, "not those of the head"),
        ({"rows/penultimate": np.zeros((4, 128), np.float32)}, "belong to no image"),
        ({"rows/penultimate": np.zeros((5, 128))}, "belong to no image"),
        ({"rows/penultimate": np.zeros(128, np.float32)}, "belong to no image"),
        ({"rows/penultimate": np.full((5, 128), np.inf, np.float32)}, "no number"),
        ({"rows/layer1": np.zeros((5, 128), np.float32)}, "examples of"),
    ],
)
def test_examples_that_the_head_does_not_give_are_refused(folder, change, said):
    arrays = load_file(folder / "examples.safetensors")
    put(folder, "examples.safetensors", save({**arrays, **change}))
    assert said in refused(folder)


UNIT = np.full((12, 128), 128**-0.5)


@pytest.mark.parametrize(
    "rows",
    [
        UNIT.astype(np.float32),
        UNIT[:, :5].astype(np.float16),
        UNIT[0].astype(np.float16),
        UNIT[:0].astype(np.float16),
        np.full((12, 128), np.nan, dtype=np.float16),
        np.full((12, 128), np.inf, dtype=np.float16),
        (UNIT * 3).astype(np.float16),
    ],
    ids=["float32", "narrow", "flat", "empty", "nan", "inf", "long"],
)
def test_reference_rows_that_are_none_are_refused(folder, rows):
    put(folder, "open_set.safetensors", save({"rows": rows}))
    assert "not a bundle of ours: reference rows" in refused(folder)


def test_more_reference_rows_than_a_bundle_may_hold_are_refused(folder, monkeypatch):
    monkeypatch.setattr("classify.bundle_checks.MAX_ROWS", 11)
    assert "reference rows" in refused(folder)


NAN, HUGE = float("nan"), 10**400
WRONG_THRESHOLDS = {
    "conformal": [
        {"thresholds": [0.5]},
        {"thresholds": [0.5, NAN]},
        {"thresholds": [0.5, "0.5"]},
        {"thresholds": 0.5},
        {"thresholds": [0.5, HUGE]},
        {"alpha": NAN},
        {"alpha": -1},
        {"n": 0},
        {"class_conditional": "no"},
    ],
    "abstain": [
        {"threshold": NAN},
        {"threshold": 1.5},
        {"threshold": True},
        {"threshold": None},
        {"by": "luck"},
        {"by": []},
        {"more": 1},
    ],
    "open_set": [
        {"k": 0},
        {"k": 13},
        {"k": HUGE},
        {"k": 2.5},
        {"k": True},
        {"threshold": 0},
        {"threshold": NAN},
        {"threshold": float("inf")},
        {"quantile": 2},
        {"n_seen": -1},
    ],
}


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name, changes in WRONG_THRESHOLDS.items() for change in changes]
)
def test_a_threshold_that_is_none_is_refused(folder, name, change):
    say(folder, lambda said: said["thresholds"][name].update(change))
    refused(folder)


@pytest.mark.parametrize("name", ["conformal", "abstain", "open_set"])
@pytest.mark.parametrize("value", [[], "x", 3, {}])
def test_thresholds_of_another_form_are_refused(folder, name, value):
    say(folder, lambda said: said["thresholds"].update({name: value}))
    refused(folder)


@pytest.mark.parametrize("labels", [None, [0.5], [0.5, NAN], [0.5, 2], "00", [0.5, "0.5"]])
def test_several_labels_without_a_threshold_each_are_refused(folder, labels):
    say(folder, lambda said: said["thresholds"].update(labels=labels))
    say(folder, lambda said: said.update(task="multi"))
    assert "thresholds of labels" in refused(folder)


def test_one_label_with_thresholds_for_several_is_refused(folder):
    say(folder, lambda said: said["thresholds"].update(labels=[0.5, 0.5]))
    assert "thresholds of labels" in refused(folder)


def test_a_head_of_another_width_is_refused(folder):
    arrays = load_file(folder / "head.safetensors")
    narrow = {name: np.ascontiguousarray(a[..., :-1]) if name != "intercept" else a for name, a in arrays.items()}
    put(folder, "head.safetensors", save(narrow))
    assert "reference rows of the shape (12, 128)" in refused(folder)
    say(folder, lambda said: said["thresholds"].update(open_set=None))
    say(folder, lambda said: [said["files"].pop(name) for name in ("open_set.safetensors", "examples.safetensors")])
    assert "takes 127 numbers, and 'penultimate' gives 128" in refused(folder)


def test_json_deeper_than_the_stack_is_refused(folder):
    put(folder, "recipe.json", b"[" * 100_000)
    assert "not a bundle of ours" in refused(folder)


def test_a_recipe_beyond_the_cap_is_refused(folder, monkeypatch):
    monkeypatch.setitem(manifest.MAX_BYTES, "recipe.json", 10)
    assert "more than 10" in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": ["no.such.node"]},
        {"nodes": []},
        {"nodes": [["avgpool"]]},
        {"model": 3},
        {"precision": "fp8"},
        {"store": "object"},
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_refused(folder, change):
    put_recipe(folder, lambda value: value.update(change))
    refused(folder)


PLACES = ("bundle.json", "recipe.json", "head.safetensors", "weights.safetensors", "examples.safetensors")


def to_pipe(path: Path) -> None:
    os.mkfifo(path)


def to_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        before = Path.cwd()
        os.chdir(path.parent)  # the name of a socket may not be long
        try:
            listening.bind(path.name)
        finally:
            os.chdir(before)


def to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def to_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "outside")


@pytest.mark.skipif(os.name != "posix", reason="pipes, sockets and links in folders")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [to_pipe, to_socket, to_device, to_link, Path.mkdir])
@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_file_is_never_waited_for_nor_followed(folder, tmp_path, name, make):
    (folder / name).rename(tmp_path / "outside")  # whose digest is right
    make(folder / name)
    said = refused(folder)
    links = make in (to_device, to_link)
    if name == "bundle.json" and make is not to_link:
        assert "no run of that name or path" in said
    else:
        assert ("a link, and a bundle is whole in its folder" if links else "not a regular file") in said
        assert str(folder / name) in said


@pytest.mark.skipif(os.name != "posix", reason="files with holes")
def test_weights_of_a_size_that_no_network_has_are_not_hashed(folder, monkeypatch):
    monkeypatch.setattr(manifest.hashlib, "file_digest", None)
    os.truncate(folder / "weights.safetensors", manifest.MAX_WEIGHTS_BYTES + 1)
    assert "are more than" in refused(folder)
