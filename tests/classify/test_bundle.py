import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_features import blobs, tiny_recipe

from classify.bundle import Blocks, Bundle, read_bundle, write_bundle
from classify.conformal import fit_abstain, fit_conformal
from classify.heads import HEADS
from classify.manifest import manifest_digest
from classify.openset import fit_open_set
from classify.scoring import ROWWISE
from extract.errors import BundleError, FitError

RECIPE = tiny_recipe(["layer1:grid:4", "penultimate"])
CLASSES = ["class 0", "class 1", "class 2"]


def fitted(name: str, n_classes: int = 3) -> tuple[Bundle, np.ndarray, np.ndarray]:
    y = np.arange(60) % n_classes
    X = blobs(y, 7, distance=0.7)
    head = HEADS[name]
    value = head.values(60)[0]
    pipeline = head.build(value, 0).fit(X.astype(np.float64), y)
    expected = head.scores(pipeline, X.astype(np.float64))
    return bundle_of(name, head.kind, head.arrays(pipeline), CLASSES[:n_classes]), X, expected


def bundle_of(head: str, kind: str, arrays: dict[str, np.ndarray], classes: list[str], **known: Any) -> Bundle:
    given = {"layers": ("penultimate",), "transform": "none", "temperature": 0.7, "params": {"C": 1.0}, **known}
    return Bundle(recipe=RECIPE, head=head, kind=kind, arrays=arrays, classes=classes, **given)


def written(tmp_path: Path, bundle: Bundle, X: np.ndarray, expected: np.ndarray) -> Path:
    """Write a bundle of one layer."""
    return put(tmp_path, bundle, dict.fromkeys(bundle.layers, X), expected)


def put(tmp_path: Path, bundle: Bundle, blocks: Blocks, expected: np.ndarray) -> Path:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    write_bundle(tmp_path / "bundle", bundle, weights=weights, blocks=blocks, expected=expected)
    return tmp_path / "bundle"


def linear(n_classes: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    coef, intercept = rng.normal(size=(n_classes, width)), rng.normal(size=n_classes)
    return {"mean": rng.normal(size=width), "scale": rng.random(width) + 0.1, "coef": coef, "intercept": intercept}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", HEADS)
def test_what_is_read_scores_as_sklearn_does(tmp_path, name, n_classes):
    bundle, X, expected = fitted(name, n_classes)
    found = read_bundle(written(tmp_path, bundle, X, expected))
    assert found.scores({"penultimate": X}) == pytest.approx(expected, rel=1e-6, abs=1e-5)
    assert found.probabilities({"penultimate": X}).sum(axis=1) == pytest.approx(1)
    assert (found.recipe, found.classes, found.params) == (RECIPE, bundle.classes, bundle.params)
    assert found.temperature == 0.7
    assert found.weights_path.read_bytes() == b"weights"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "weights.safetensors"]


@pytest.mark.parametrize("transform", ROWWISE)
def test_several_layers_are_joined_each_of_length_one_and_then_transformed(tmp_path, transform):
    rng = np.random.default_rng(0)
    blocks = {
        "layer1": rng.normal(size=(9, 3)) * 50,
        "layer2": rng.normal(size=(9, 4)),
        "penultimate": np.zeros((9, 1)),
    }
    names = ("layer2", "layer1")
    rows = []
    for two, one in zip(blocks["layer2"], blocks["layer1"], strict=True):
        row = np.concatenate([two / np.linalg.norm(two), one / np.linalg.norm(one)])
        if transform == "pow":
            row = np.sign(row) * np.abs(row) ** 0.5
        rows.append(row / np.linalg.norm(row) if transform in ("l2", "pow") else row)
    arrays = linear(2, 7)
    expected = (np.array(rows) - arrays["mean"]) / arrays["scale"] @ arrays["coef"].T + arrays["intercept"]
    bundle = replace(
        bundle_of("logistic", "linear", arrays, CLASSES[:2], layers=names, transform=transform),
        recipe=tiny_recipe(["layer1", "layer2", "penultimate"]),
    )
    found = read_bundle(put(tmp_path, bundle, blocks, expected))
    assert found.scores(blocks) == pytest.approx(expected)
    assert (found.layers, found.transform, found.width) == (names, transform, 7)


def thresholds(X: np.ndarray, y: np.ndarray, shares: np.ndarray) -> dict[str, Any]:
    conformal = fit_conformal(shares, y, 0.2)
    abstain = fit_abstain(shares.max(axis=1), shares.argmax(axis=1) == y, "accuracy", 0.9)
    return {"conformal": conformal, "abstain": abstain, "open_set": fit_open_set(X, y, None, n_seen=99)}


def test_thresholds_come_back_as_they_were(tmp_path):
    bundle, X, expected = fitted("logistic")
    said = thresholds(X, np.arange(60) % 3, bundle.probabilities({"penultimate": X}))
    bundle = replace(bundle, **said)
    found = read_bundle(written(tmp_path, bundle, X, expected))
    assert (found.conformal, found.abstain) == (said["conformal"], said["abstain"])
    assert found.open_set is not None
    assert found.open_set.as_dict() == said["open_set"].as_dict()
    one, other = (each.answer({"penultimate": X}) for each in (bundle, found))
    assert (one.sets == other.sets).all()
    assert (one.novelty == other.novelty).all()
    assert one.novelty == pytest.approx(said["open_set"].novelty(X), abs=1e-5)
    assert (one.sets == said["conformal"].sets(one.probabilities)).all()
    assert sorted(path.name for path in found.weights_path.parent.iterdir()) == [
        "bundle.json",
        "head.safetensors",
        "open_set.safetensors",
        "recipe.json",
        "weights.safetensors",
    ]


def test_several_labels_an_image_have_a_probability_each(tmp_path):
    X = np.random.default_rng(1).normal(size=(5, 4))
    arrays = linear(3, 4)
    bundle = bundle_of("logistic", "linear", arrays, CLASSES, task="multi", label_thresholds=(0.5, 0.2, 0.7))
    expected = (X - arrays["mean"]) / arrays["scale"] @ arrays["coef"].T + arrays["intercept"]
    found = read_bundle(written(tmp_path, bundle, X, expected))
    assert found.probabilities({"penultimate": X}) == pytest.approx(1 / (1 + np.exp(-expected / 0.7)))
    assert (found.task, found.label_thresholds) == ("multi", (0.5, 0.2, 0.7))
    answers = found.answer({"penultimate": X})
    assert answers.sets is None
    assert answers.novelty is None


def old_manifest(folder: Path) -> None:
    """Write a bundle's manifest as version 2 did."""
    said = json.loads((folder / "bundle.json").read_text())
    kept = {name: value for name, value in said.items() if name not in ("layers", "transform", "task", "thresholds")}
    old = {**kept, "format_version": 2, "layer": said["layers"][0]}
    (folder / "bundle.json").write_text(json.dumps(old | {"sha256": manifest_digest(old)}))


@pytest.mark.parametrize("name", ["logistic", "knn", "centroid"])
def test_a_bundle_of_the_version_before_answers_as_it_did(tmp_path, name):
    bundle, X, expected = fitted(name)
    folder = written(tmp_path, bundle, X, expected)
    old_manifest(folder)
    found = read_bundle(folder)
    assert found.scores({"penultimate": X}) == pytest.approx(expected, rel=1e-6, abs=1e-5)
    assert (found.layers, found.conformal, found.open_set) == (("penultimate",), None, None)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.lists(st.text(st.characters(), max_size=8), min_size=2, max_size=5, unique=True),
    temperature=st.floats(0.05, 20),
    seed=st.integers(0, 99),
)
def test_round_trip(tmp_path, classes, temperature, seed):
    bundle = bundle_of("ridge", "linear", linear(len(classes), 3, seed), classes, temperature=temperature)
    blocks = {"penultimate": np.random.default_rng(seed).normal(size=(4, 3))}
    found = read_bundle(put(tmp_path, bundle, blocks, bundle.scores(blocks)))
    assert (found.classes, found.temperature) == (classes, temperature)
    assert (found.scores(blocks) == bundle.scores(blocks)).all()


def test_scores_unlike_sklearns_are_never_written(tmp_path):
    bundle, X, expected = fitted("logistic")
    with pytest.raises(FitError, match="differ"):
        written(tmp_path, bundle, X, expected + 0.01)
    assert not (tmp_path / "bundle").exists()


def test_equal_images_of_two_classes_do_not_stop_a_knn(tmp_path):
    bundle, X, _ = fitted("knn")
    X = np.repeat(X[:20], 3, axis=0).astype(np.float64)
    pipeline = HEADS["knn"].build(5, 0).fit(X, np.arange(60) % 3)
    bundle = replace(bundle, arrays=HEADS["knn"].arrays(pipeline))
    written(tmp_path, bundle, X, HEADS["knn"].scores(pipeline, X))


@pytest.mark.parametrize("name", ["head.safetensors", "recipe.json", "weights.safetensors"])
@pytest.mark.parametrize("change", ["flip", "cut", "gone"])
def test_a_changed_file_is_refused(tmp_path, name, change):
    folder = written(tmp_path, *fitted("logistic"))
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if change != "gone":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if change == "flip" else data[:-1])
    with pytest.raises(BundleError, match=name):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other"}, "not a bundle of ours"),
        ({"format_version": 1}, "format 1"),
        ({"features_key": "0" * 64}, "the recipe is not the one"),
        ({"layers": ["layer4"]}, "no layer 'layer4'"),
        ({"layers": []}, "no list of layers"),
        ({"layers": "penultimate"}, "no list of layers"),
        ({"layers": ["penultimate"] * 2}, "named twice"),
        ({"transform": "sqrt"}, "no transform 'sqrt'"),
        ({"transform": ["std"]}, "no transform"),
        ({"task": "regression"}, "no task"),
        ({"task": "multi"}, "no share for each class"),
        ({"head": 3}, "without a name"),
        ({"thresholds": 3}, "not a bundle"),
        ({"classes": ["a", "b"]}, "has the shape"),
        ({"classes": [1, 2, 3]}, "no names"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 10**400}, "not a bundle"),
        ({"kind": "pickle"}, "no kind"),
        ({"kind": "imported"}, "arrays"),
        ({"files": {"../head.safetensors": {}}}, "not a bundle"),
        ({"files": 3}, "no bundle here"),
    ],
)
def test_a_changed_manifest_is_refused(tmp_path, change, said):
    folder = written(tmp_path, *fitted("logistic"))
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=said):
        read_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"format": "offshelf-bundle"}'])
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError):
        read_bundle(tmp_path)


def test_a_head_that_fits_its_digest_and_is_no_safetensors_is_refused(tmp_path):
    folder = written(tmp_path, *fitted("logistic"))
    (folder / "head.safetensors").write_bytes(evil := b"\x80\x04cos\nsystem\n")
    said = json.loads((folder / "bundle.json").read_text())
    said["files"]["head.safetensors"] = {"sha256": hashlib.sha256(evil).hexdigest(), "bytes": len(evil)}
    (folder / "bundle.json").write_text(json.dumps(said))
    with pytest.raises(BundleError, match="not a bundle"):
        read_bundle(folder)


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="not a bundle"):
        written(tmp_path, *fitted("logistic"))
    assert (tmp_path / "bundle" / "notes.txt").read_text() == "mine"


def test_a_folder_with_more_than_a_bundle_is_not_replaced(tmp_path):
    folder = written(tmp_path, *fitted("logistic"))
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="not only that"):
        written(tmp_path, *fitted("ridge"))
    assert (folder / "notes.txt").read_text() == "mine"


def test_weights_that_cannot_be_copied_are_named(tmp_path):
    bundle, X, expected = fitted("logistic")
    gone = tmp_path / "gone.safetensors"
    with pytest.raises(BundleError, match=r"gone\.safetensors: cannot copy the weights"):
        write_bundle(tmp_path / "bundle", bundle, weights=gone, blocks={"penultimate": X}, expected=expected)


@pytest.mark.parametrize("change", [{"precision": "fp8"}, {"store": "object"}])
def test_a_recipe_of_unknown_numbers_is_refused(tmp_path, change):
    bundle, X, expected = fitted("logistic")
    folder = written(tmp_path, replace(bundle, recipe=replace(RECIPE, **change)), X, expected)
    with pytest.raises(BundleError, match="it computes"):
        read_bundle(folder)


@pytest.mark.parametrize("layer", ["layer3:map", "penultimate@1", "layer3"])
def test_a_head_reads_rows_of_the_centre_view_alone(tmp_path, layer):
    bundle, X, expected = fitted("logistic")
    recipe = replace(tiny_recipe(["layer3:map", "penultimate"]), views=2)
    folder = written(tmp_path, replace(bundle, recipe=recipe, layers=(layer,)), X, expected)
    with pytest.raises(BundleError, match=f"the recipe has no layer '{layer}' of rows"):
        read_bundle(folder)
    folder = written(tmp_path, replace(bundle, recipe=recipe), X, expected)
    assert read_bundle(folder).recipe.views == 2


def test_a_recipe_of_the_first_version_is_told_to_be_one(tmp_path):
    folder = written(tmp_path, *fitted("logistic"))
    recipe = json.loads((folder / "recipe.json").read_text()) | {"schema_version": 1}
    old = json.dumps({k: v for k, v in recipe.items() if k not in ("tf32", "views", "view_seed")}).encode()
    (folder / "recipe.json").write_bytes(old)
    said = json.loads((folder / "bundle.json").read_text())
    said["files"]["recipe.json"] = {"sha256": hashlib.sha256(old).hexdigest(), "bytes": len(old)}
    (folder / "bundle.json").write_text(json.dumps(said))
    with pytest.raises(BundleError, match=r"a recipe of version 1, and not 2.*Run fit again"):
        read_bundle(folder)


@pytest.mark.parametrize("name", HEADS)
def test_the_width_of_a_head_is_that_of_its_features(name):
    assert fitted(name)[0].width == 7


def test_no_number_or_name_of_a_manifest_can_be_changed_unseen(tmp_path):
    folder = written(tmp_path, *fitted("logistic"))
    path = folder / "bundle.json"
    whole, expected = path.read_text(), read_bundle(folder)
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place].encode() + bytes([ord(whole[place]) ^ 1]) + whole[place + 1 :].encode())
        try:
            said = read_bundle(folder)
        except BundleError:
            continue
        assert (said.temperature, said.classes, said.params) == (
            expected.temperature,
            expected.classes,
            expected.params,
        )
