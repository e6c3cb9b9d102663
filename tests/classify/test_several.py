import csv
import json

import numpy as np
import pytest
from planted import CLASSES, planted

from classify.bundle import read_bundle
from extract.errors import FitError, OptionError


def test_a_run_of_several_labels_is_whole_and_its_bundle_answers_alike(make_features, run, tmp_path):
    features = planted(make_features, 90)
    found = run(features, multi_label=True)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == found
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "bundle",
        "findings",
        "metrics.json",
        "predictions.csv",
        "report.html",
    }
    assert (found["task"], found["metric"], found["classes"]) == ("multi", "map", CLASSES)
    assert found["test"]["map"]["value"] > found["baseline"] + 0.3
    bundle = read_bundle(tmp_path / "run" / "bundle")
    assert (bundle.task, bundle.layers) == ("multi", tuple(found["layers"]))
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").read_text().splitlines()))
    at = np.array([features.ids.index(row["id"]) for row in rows])
    shares = bundle.probabilities({layer: features.read(layer, at) for layer in bundle.layers})
    for row, share in zip(rows, shares.tolist(), strict=True):
        assert json.loads(row["probability"]) == pytest.approx(dict(zip(CLASSES, share, strict=True)), abs=1e-5)
        named = [name for name, p, low in zip(CLASSES, share, bundle.label_thresholds, strict=True) if p >= low]
        assert row["predicted"] == ("|".join(named) or "-")
    assert any(row["label"] != row["predicted"] for row in rows)
    assert "mean average precision" in (tmp_path / "run" / "report.html").read_text()


def test_labels_of_a_file_stand_instead_of_those_stored(make_features, run, tmp_path):
    features = planted(make_features, 90)
    flags = features.X["late"][:, :2] > features.X["late"][:, :2].mean(axis=0)
    cells = ["|".join(np.array(["left", "right"])[row]) or "-" for row in flags]
    table = "path,label\n" + "".join(f"{id_},{cell}\n" for id_, cell in zip(features.ids, cells, strict=True))
    (tmp_path / "labels.csv").write_text(table)
    found = run(features, multi_label=True, labels=tmp_path / "labels.csv", layers=("late",))
    assert found["classes"] == ["left", "right"]
    assert found["test"]["map"]["value"] > 0.9


@pytest.mark.parametrize(
    "options",
    [{"head": "ridge"}, {"metric": "accuracy"}, {"class_weight": "balanced"}, {"answer_accuracy": 0.9}],
)
def test_what_means_nothing_with_several_labels_is_refused(make_features, run, options, tmp_path):
    with pytest.raises(OptionError, match="several labels take the head logistic"):
        run(planted(make_features, 40), multi_label=True, **options)
    assert not (tmp_path / "run").exists()


def test_a_fit_that_fails_leaves_the_last_run(make_features, run, tmp_path, monkeypatch):
    features = planted(make_features, 60)
    before = run(features, multi_label=True, layers=("late",))

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("classify.several.write_evidence", fail)
    with pytest.raises(FitError, match="disk full"):
        run(features, multi_label=True, layers=("late",))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
