import csv
from pathlib import Path

import numpy as np
import pytest
from tiny_features import blobs, noise

from classify.bundle import read_bundle
from classify.compare import compare
from extract.errors import FitError

NOT_DONE = ("cv", "selection", "grouping", "learning_curve", "hygiene", "calibration", "advice")
SAID = """task command features features_key strategy protocol layers transform head params metric imbalance seed
classes n_train n_test n_bad n_unlabelled split test baseline confusion per_class per_layer search notes warnings
versions run seconds"""


def two_taps(make_features, **known):
    labels = np.arange(90) % 3
    X = {"layer1": noise(90, 5), "penultimate": blobs(labels, 6)}
    return make_features(labels, ["wasp", "ant", "bee"], X=X, **known)


def answers(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))


def test_a_protocol_with_a_linear_head_leaves_a_whole_run(make_features, run, tmp_path):
    features = two_taps(make_features)
    found = run(features, protocol="clip")
    assert set(SAID.split()) | set(NOT_DONE) == set(found)
    assert all(found[name] is None for name in NOT_DONE)
    assert (found["protocol"]["protocol"], found["protocol"]["kept"]) == ("clip", True)
    assert found["layers"] == ["penultimate"]
    assert found["test"][found["metric"]] == found["protocol"]["value"]
    assert found["test"]["accuracy"]["value"] > 0.9
    bundle = read_bundle(tmp_path / "run" / "bundle")
    rows = answers(tmp_path / "run")
    at = np.array([features.ids.index(row["id"]) for row in rows])
    shares = bundle.probabilities({"penultimate": features.read("penultimate", at)})
    assert [row["predicted"] for row in rows] == [bundle.classes[code] for code in shares.argmax(axis=1)]
    assert any("calibrates nothing" in said for said in found["warnings"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Radford" in page
    assert "offshelf predict" in page


def test_neighbours_leave_a_run_without_a_bundle_and_the_page_promises_none(make_features, run, tmp_path):
    found = run(two_taps(make_features), protocol="dinov2-knn", layers=("penultimate",))
    assert found["protocol"]["kept"] is False
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "metrics.json",
        "predictions.csv",
        "report.html",
        "findings",
    }
    assert "offshelf predict" not in (tmp_path / "run" / "report.html").read_text()
    assert run(two_taps(make_features))["protocol"] is None  # a run without a bundle is one of ours, to be replaced


def test_a_few_images_are_drawn_as_often_as_asked(make_features, run, tmp_path):
    found = run(two_taps(make_features), few_shot=2, draws=7)
    tried = found["protocol"]["tried"]
    assert [row["n"] for row in tried] == [6] * 7
    value = found["protocol"]["value"]
    assert value["value"] == pytest.approx(np.mean([row["score"] for row in tried]))
    assert value["low"] <= value["value"] <= value["high"]
    assert (found["protocol"]["protocol"], found["params"]["shots"]) == ("few-shot", 2)


def test_runs_of_protocols_can_be_compared_with_any_other(make_features, run, tmp_path):
    features = two_taps(make_features)
    for name, options in {"clip": {"protocol": "clip"}, "own": {}, "knn": {"protocol": "dinov2-knn"}}.items():
        run(features, out=tmp_path / name, **options)
    found = compare([tmp_path / name for name in ("clip", "own", "knn")])
    assert [row["protocol"] and row["protocol"]["protocol"] for row in found["runs"]] == ["clip", None, "dinov2-knn"]
    assert {pair["on"] for pair in found["pairs"]} == {"test"}
    assert all(pair["n"] == found["runs"][0]["n_test"] for pair in found["pairs"])


def test_the_published_metric_is_kept_and_one_that_is_none_is_refused(make_features, run):
    features = two_taps(make_features)
    found = run(features, protocol="kornblith", metric="balanced_accuracy")
    assert found["metric"] == found["protocol"]["metric"] == "balanced_accuracy"
    assert found["test"]["balanced_accuracy"] == found["protocol"]["value"]
    assert len(found["protocol"]["tried"]) == 45


def test_a_validation_split_that_is_given_is_the_one_that_chooses(make_features, run):
    splits = ["train"] * 45 + ["val"] * 15 + ["test"] * 30
    found = run(two_taps(make_features, splits=splits), protocol="clip")
    assert any("chosen on the validation split that is given" in note for note in found["notes"])
    assert (found["n_train"], found["n_test"]) == (60, 30)


def test_one_tap_is_followed_and_no_more(make_features, run):
    features = two_taps(make_features)
    assert run(features, protocol="few-shot", layers=("layer1",))["layers"] == ["layer1"]
    with pytest.raises(FitError, match=r"takes one tap, and 2 are named.*--layer"):
        run(features, protocol="clip", layers=("layer1", "penultimate"))


@pytest.mark.parametrize("at", [0, -1])
def test_what_is_no_number_stops_a_protocol(make_features, run, tmp_path, at):
    features = two_taps(make_features, splits=["train"] * 60 + ["test"] * 30)
    features.X["penultimate"][at] = np.nan
    with pytest.raises(FitError, match="no number"):
        run(features, protocol="dinov2-knn")
    assert not (tmp_path / "run").exists()
