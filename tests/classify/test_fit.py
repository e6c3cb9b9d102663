import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_features import blobs

import classify.linear as module
from classify.bundle import read_bundle
from classify.heads import HEADS
from classify.probe import loo
from classify.probe.memory import MemoryPlan
from extract.errors import BundleError, FitError, StoreError
from extract.store.folders import FITS
from tests.tiny import files_in

WORDS = """strategy layers head params classes n_train n_test cv test confusion per_class calibration search advice
seconds versions features_key split warnings n_bad n_unlabelled seed features run per_layer task command protocol
transform dims class_weight metric imbalance folds selection baseline grouping learning_curve hygiene notes"""


def two_taps(make_features, **known):
    labels = np.arange(90) % 3
    rng = np.random.default_rng(0)
    X = {"layer1": rng.random((90, 5)).astype(np.float32), "penultimate": blobs(labels, 8)}
    return make_features(labels, ["wasp", "ant", "bee"], X=X, **known)


def test_a_run_is_whole_and_says_what_it_found(make_features, run, tmp_path):
    features = two_taps(make_features)
    metrics = run(features)
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == [
        "bundle",
        "findings",
        "metrics.json",
        "out_of_fold.csv",
        "predictions.csv",
        "report.html",
    ]
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert set(metrics) >= set(WORDS.split())
    assert (metrics["layers"], metrics["classes"]) == (["penultimate"], ["ant", "bee", "wasp"])
    assert (metrics["n_train"], metrics["n_test"]) == (72, 18)
    assert metrics["test"]["accuracy"]["value"] > 0.9
    assert {row["layer"] for row in metrics["search"]} == {"layer1", "penultimate", "layer1 + penultimate"}
    chance = next(row for row in metrics["per_layer"] if row["layer"] == "layer1")["accuracy"]
    assert chance["value"] < 0.6
    for found in (*metrics["test"].values(), *metrics["cv"].values()):
        assert found["low"] <= found["value"] <= found["high"]


def test_answers_out_of_fold_say_which_fold_held_them_back(make_features, run, tmp_path):
    metrics = run(two_taps(make_features))
    with (tmp_path / "run" / "out_of_fold.csv").open(newline="") as file:
        folds = [int(row["fold"]) for row in csv.DictReader(file)]
    assert sorted(set(folds)) == list(range(1, metrics["folds"] + 1))
    assert max(map(folds.count, folds)) - min(map(folds.count, folds)) <= len(metrics["classes"])


def test_the_bundle_answers_what_the_predictions_say(make_features, run, tmp_path):
    features = two_taps(make_features, ids=[f"{row}\udcff.png" for row in range(90)])
    run(features)
    with (tmp_path / "run" / "predictions.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    at = [features.ids.index(row["id"]) for row in rows]
    bundle = read_bundle(tmp_path / "run" / "bundle")
    shares = bundle.probabilities({"penultimate": features.read("penultimate", np.array(at))})
    assert [row["predicted"] for row in rows] == [bundle.classes[code] for code in shares.argmax(axis=1)]
    assert [float(row["probability"]) for row in rows] == pytest.approx(shares.max(axis=1), abs=1e-5)
    assert [row["label"] for row in rows] == [["wasp", "ant", "bee"][row % 3] for row in at]


def timeless(found):
    """What a run says, without what its clock says."""
    if isinstance(found, dict):
        return {key: timeless(value) for key, value in found.items() if key != "seconds"}
    return [timeless(each) for each in found] if isinstance(found, list) else found


def test_a_second_fit_scans_nothing_and_says_the_same(make_features, run, monkeypatch):
    features = two_taps(make_features)
    first = run(features)
    monkeypatch.setattr("classify.search.scan", None)
    assert timeless(run(features)) == timeless(first)
    with pytest.raises(TypeError):  # the seed moves the hold-out and the folds
        run(features, seed=1)


def test_other_labels_need_no_new_decomposition(make_features, run, tmp_path, monkeypatch):
    features = two_taps(make_features, splits=["train"] * 60 + ["test"] * 30)
    first = run(features)
    decomposed = []
    monkeypatch.setattr(loo, "_decomposed", lambda *known, plain=loo._decomposed: decomposed.append(1) or plain(*known))
    (tmp_path / "other.csv").write_text(
        "path,label\n" + "".join(f"{id_},{'ab'[row // 2 % 2]}\n" for row, id_ in enumerate(features.ids))
    )
    other = run(features, labels=tmp_path / "other.csv")
    assert not decomposed
    assert (other["classes"], first["classes"]) == (["a", "b"], ["ant", "bee", "wasp"])
    assert (other["n_train"], other["n_test"]) == (60, 30)
    (features.folder / FITS).rename(tmp_path / "gone")
    again = run(features, labels=tmp_path / "other.csv")
    assert len(decomposed) == 6  # two taps in three transforms
    assert timeless(again) == timeless(other)


def test_the_test_part_has_no_say_in_what_is_chosen_and_promised(make_features, run):
    splits = ["train"] * 60 + ["test"] * 30
    features = two_taps(make_features, splits=splits)
    features.X["layer1"][:60] = 0.3 * features.X["penultimate"][:60, :5]
    before = run(features)
    rng = np.random.default_rng(5)
    features.labels[60:] = rng.integers(0, 3, 30)
    for X in features.X.values():
        X[60:] = rng.random((30, X.shape[1])) * 100
    after = run(features)
    chosen = ("layers", "transform", "head", "params", "selection", "cv", "search", "learning_curve")
    assert timeless([after[name] for name in chosen]) == timeless([before[name] for name in chosen])
    promised = ("temperature", "out_of_fold", "open_set")
    assert [after["calibration"][name] for name in promised] == [before["calibration"][name] for name in promised]
    assert after["calibration"]["conformal"]["thresholds"] == before["calibration"]["conformal"]["thresholds"]
    assert after["calibration"]["conformal"]["threshold"] == before["calibration"]["conformal"]["threshold"]
    assert after["test"] != before["test"]


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_fits_two_classes(make_features, run, head):
    metrics = run(make_features(np.arange(40) % 2, ["a", "b"]), head=head)
    assert metrics["test"]["accuracy"]["value"] == 1.0
    assert metrics["head"] == head


def test_random_labels_are_not_clearly_better_than_chance(make_features, run):
    labels = np.random.default_rng(0).integers(0, 2, 200)
    X = {"penultimate": np.random.default_rng(1).random((200, 20)).astype(np.float32)}
    found = run(make_features(labels, ["a", "b"], X=X))["test"]["accuracy"]
    assert found["low"] < 0.5 < found["high"]


def test_bad_rows_unseen_labels_and_few_folds_are_all_told(make_features, run):
    labels = np.array([0, 1] * 12 + [0, 1, 2, 2] + [0, -1])
    features = make_features(
        labels, ["a", "b", "c"], splits=["train"] * 24 + ["test"] * 6, X={"x": blobs(labels % 3, 4)}
    )
    features.status[28] = 4
    features.X["x"][28] = np.nan
    metrics = run(features, cv=50)
    assert (metrics["n_bad"], metrics["n_unlabelled"], metrics["n_test"]) == (1, 1, 4)
    assert metrics["test"]["accuracy"]["value"] <= 0.5
    assert any("'c'" in text for text in metrics["warnings"])
    assert any("12 folds instead of 50" in text for text in metrics["warnings"])


def test_a_run_of_ours_is_replaced_and_anything_else_is_not(make_features, run, tmp_path):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    run(features)
    (tmp_path / "run" / "report.html").write_text("of the last run")
    run(features)
    assert (tmp_path / "run" / "report.html").read_text() != "of the last run"
    (tmp_path / "run" / "metrics.json").write_text('{"loss": 1}')
    with pytest.raises(FitError, match="--out"):
        run(features)
    assert (tmp_path / "run" / "bundle").exists()


@pytest.mark.parametrize("place", ["notes.txt", "photos/metrics.json", "bundle/notes.txt", "findings/notes.csv"])
def test_a_run_with_something_else_in_it_is_not_replaced(make_features, run, tmp_path, place):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    run(features)
    mine = tmp_path / "run" / place
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(FitError, match=r"holds more than .*--out DIR"):
        run(features)
    assert mine.read_text() == "mine"


def test_what_came_into_the_folder_during_the_search_stays(make_features, run, tmp_path, monkeypatch):
    def slow(*args, search=module.search):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "mine").write_text("mine")
        return search(*args)

    monkeypatch.setattr(module, "search", slow)
    with pytest.raises(FitError, match="not a run of ours"):
        run(make_features(np.arange(40) % 2, ["a", "b"]))
    assert (tmp_path / "run" / "mine").exists()


def test_where_nothing_can_be_written_is_told_before_the_search(make_features, run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "search", None)
    for out in (tmp_path / "file" / "run", tmp_path / "file", tmp_path / ("long" * 63)):
        with pytest.raises(FitError, match="write"):
            run(make_features(np.arange(40) % 2, ["a", "b"]), out=out)


def test_weights_are_checked_before_the_search(make_features, run, monkeypatch):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    features.weights_path.unlink()
    monkeypatch.setattr(module, "search", None)
    with pytest.raises(StoreError, match="weights"):
        run(features)


def test_noise_that_was_saved_twice_stays_noise(make_features, run):
    rng = np.random.default_rng(0)
    labels, X = rng.integers(0, 2, 120), rng.random((120, 40)).astype(np.float32)
    features = make_features(np.tile(labels, 2), ["a", "b"], X={"x": np.tile(X, (2, 1))})
    features.sha256[120:] = features.sha256[:120]
    found = run(features, head="knn")
    assert found["test"]["accuracy"]["low"] < 0.5
    assert found["cv"]["accuracy"]["low"] < 0.5


def test_a_harder_test_is_told(make_features, run):
    labels = np.arange(120) % 2
    X = blobs(labels, 4)
    X[80:] = X[80:][np.random.default_rng(0).permutation(40)]
    known = {"splits": ["train"] * 80 + ["test"] * 40, "X": {"x": X}}
    said = run(make_features(labels, ["a", "b"], **known))["warnings"]
    assert any("the test images are harder than the training ones" in text for text in said)
    known["X"]["x"][80:] = X[:40]
    said = run(make_features(labels, ["a", "b"], **known))["warnings"]
    assert not any("harder" in text for text in said)


@pytest.mark.parametrize(
    ("place", "error", "told"),
    [
        ("write_evidence", OSError("disk full"), FitError),
        ("write_bundle", BundleError("scores unlike those of scikit-learn"), BundleError),
        ("write_evidence", KeyboardInterrupt(), KeyboardInterrupt),
        ("search", KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_fit_that_fails_or_is_stopped_leaves_the_last_run(
    make_features, run, tmp_path, monkeypatch, place, error, told
):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    run(features)
    before = files_in(tmp_path / "run")

    def fail(*args, **known):
        raise error

    monkeypatch.setattr(module, place, fail)
    with pytest.raises(told, match=None if told is KeyboardInterrupt else "disk full|unlike"):
        run(features, seed=1)
    assert files_in(tmp_path / "run") == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
sys.path[:0] = sys.argv[2:]
from tiny_features import FakeFeatures, blobs
from classify import fit, inputs, linear

labels = np.arange(40) % 2
features = FakeFeatures({"penultimate": blobs(labels, 8)}, labels, ["a", "b"], folder / "weights.safetensors")
inputs.open_features = lambda *_: features
linear.write_evidence = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
fit.fit(fit.FitSpec("tiny", strategy="linear", out=folder / "run", cv=2, duplicates="off"))
"""


def test_a_fit_that_is_killed_leaves_the_last_run_and_the_next_one_replaces_it(make_features, run, tmp_path):
    features = make_features(np.arange(40) % 2, ["a", "b"])
    run(features)
    before = files_in(tmp_path / "run")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), *paths], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert files_in(tmp_path / "run") == before
    assert run(features, seed=2) == json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_an_unknown_layer_names_the_nearest(make_features, run):
    with pytest.raises(FitError, match="nearest: 'penultimate'"):
        run(two_taps(make_features), layers=("penultimat",))
    assert run(two_taps(make_features), layers=("layer1",))["layers"] == ["layer1"]


def with_a_map(make_features, *others: str, **changes):
    labels = np.arange(60) % 2
    X = {"layer3:map": np.random.default_rng(0).random((60, 2, 3, 3)).astype(np.float32)}
    features = make_features(labels, ["a", "b"], X=X | {name: blobs(labels, 8) for name in others})
    features.recipe = replace(features.recipe, **changes)
    return features


def test_maps_are_left_out_of_all_taps_and_views_of_all_layers(make_features, run, tmp_path):
    features = with_a_map(make_features, "layer4", "penultimate", views=3, view_seed=1)
    metrics = run(features, head="ridge")
    assert [row["layer"] for row in metrics["per_layer"]] == ["layer4", "penultimate"]
    bundle = read_bundle(tmp_path / "run" / "bundle")
    assert bundle.recipe == features.recipe
    assert metrics["features_key"] == bundle.recipe.key
    assert bundle.layers in (("layer4",), ("penultimate",))


def test_a_fit_on_maps_says_what_to_extract(make_features, run):
    said = r"tiny/0123456789ab: 'layer3:map' is a map, and a head takes rows\. Extract it pooled too: --layer layer3$"
    for features, layers in (
        (with_a_map(make_features), ()),
        (with_a_map(make_features), ("layer3:map",)),
        (with_a_map(make_features, "penultimate"), ("layer3:map",)),
        (with_a_map(make_features, "penultimate"), ("penultimate", "layer3:map")),
    ):
        with pytest.raises(FitError, match=said):
            run(features, layers=layers)


def test_a_further_view_is_no_tap_to_fit_on(make_features, run):
    features = with_a_map(make_features, "penultimate", views=2)
    with pytest.raises(FitError, match=r"no layer 'penultimate@1' \(nearest: 'penultimate'\)"):
        run(features, layers=("penultimate@1",))


@pytest.mark.parametrize("rows", [slice(None), 0, 39])
def test_features_that_are_no_numbers_stop_the_fit(make_features, run, tmp_path, rows):
    features = make_features(np.arange(40) % 2, ["a", "b"], splits=["train"] * 30 + ["test"] * 10)
    features.X["penultimate"][rows] = np.nan
    with pytest.raises(FitError, match="no number"):
        run(features)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def streamed(monkeypatch):
    """As if no features fitted into memory."""
    plan = MemoryPlan(False, 2 * 10**9, 10**9, "too much: streamed from the cache")
    monkeypatch.setattr("classify.inputs.plan_memory", lambda *_: plan)
    monkeypatch.setattr("classify.published.plan_memory", lambda *_: plan)


def fitted_on_two_taps(make_features, run, folder, head):
    folder.mkdir()
    features = two_taps(make_features)
    features.path = folder / "features.h5"
    features.folder = folder  # nothing is kept from one to the other
    metrics = run(features, head=head, out=folder / "run")
    return metrics, (folder / "run" / "predictions.csv").read_text()


@pytest.mark.parametrize("head", ["logistic", "ridge"])
def test_what_is_streamed_is_chosen_and_answered_alike(make_features, run, tmp_path, request, head):
    plain, answers = fitted_on_two_taps(make_features, run, tmp_path / "plain", head)
    request.getfixturevalue("streamed")
    blocks, same = fitted_on_two_taps(make_features, run, tmp_path / "streamed", head)
    chosen = ("layers", "transform", "head", "params")
    assert [blocks[name] for name in chosen] == [plain[name] for name in chosen]
    assert same == answers
    assert "too much: streamed from the cache" in blocks["notes"]
    assert not any("too much" in note for note in plain["notes"])
    assert {row["how"].split(":")[0] for row in blocks["per_layer"]} == {"3 folds"}


@pytest.mark.parametrize(
    "options", [{"head": "knn"}, {"head": "ridge", "class_weight": "balanced"}, {"protocol": "few-shot"}]
)
def test_what_cannot_be_streamed_says_so_before_the_search(make_features, run, streamed, monkeypatch, options):
    monkeypatch.setattr(module, "search", None)
    with pytest.raises(FitError, match=r"needs all features in memory.*--head logistic"):
        run(two_taps(make_features), **options)


def test_fitting_never_imports_torch():
    code = "import sys, classify.fit, classify.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
