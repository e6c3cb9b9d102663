import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from planted import CLASSES, planted
from scipy.special import expit
from tiny_features import FakeFeatures

from classify.bundle import Bundle, read_bundle, write_bundle
from classify.multilabel.data import read_multilabel
from classify.multilabel.fit import MultiFit, MultiSpec, fit_multilabel
from classify.multilabel.metrics import METRICS
from classify.scoring import ROWWISE, join
from extract.errors import OptionError
from extract.run import extract
from extract.store import FeatureSet
from tests.tiny import features_of, tiny_spec

SHAPES = {"circle": ("ellipse", "red"), "square": ("rectangle", "lime"), "bar": ("rectangle", "blue")}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    weights = tmp_path_factory.mktemp("fitted") / "weights.safetensors"

    def make(labels: np.ndarray, names: list[str], **known) -> FakeFeatures:
        return FakeFeatures(labels=labels, label_names=names, weights_path=weights, **known)

    features = planted(make)
    data = read_multilabel(features)
    return features, data, fit_multilabel(features, data, MultiSpec(cv=3))


def test_the_head_with_its_transform_gives_the_predictions_that_were_measured(fitted):
    features, data, found = fitted
    X = ROWWISE[found.transform](join([features.read(layer, data.test.rows) for layer in found.layers]))
    scores = found.linear.scores(X)
    np.testing.assert_allclose(scores, found.scores, atol=1e-9)
    assert found.linear.coef.shape == (3, X.shape[1])
    for row, p in zip(found.predictions, expit(scores), strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(p.tolist(), abs=1e-6)
        named = [name for name, each, from_ in zip(CLASSES, p, found.thresholds, strict=True) if each >= from_]
        assert row["predicted"] == ("|".join(named) or "-")
        assert row["label"] == data.cells[features.ids.index(row["id"])]


def test_metrics_are_json_in_the_shape_of_a_run(fitted):
    _, data, found = fitted
    said = json.loads(json.dumps(found.metrics, allow_nan=False))
    assert said["task"] == "multi"
    assert said["classes"] == found.classes == CLASSES
    for part in ("cv", "test"):
        for name in (*METRICS, "log_loss"):
            each = said[part][name]
            assert each["low"] <= each["value"] <= each["high"]
    assert "confusion" not in said
    assert [row["class"] for row in said["per_class"]] == CLASSES
    assert [row["support"] for row in said["per_class"]] == data.test.Y.sum(axis=0).tolist()
    assert {row["layer"] for row in said["per_layer"]} == {"early", "late", "early + late"}
    assert {row["stage"] for row in said["search"]} == {"scan", "refine"}
    assert said["selection"]["n_configurations"] == len(said["search"])
    assert said["baseline"] == pytest.approx(data.test.Y.mean())
    assert said["test"]["map"]["value"] > said["baseline"] + 0.3
    assert said["labels"]["none"] == sum(cell == "-" for cell in data.cells)


def test_of_features_that_say_nothing_the_score_is_corrected_downwards(make_features):
    features = planted(make_features, 90)
    features.X = {
        name: np.random.default_rng(3).normal(size=X.shape).astype(np.float32) for name, X in features.X.items()
    }
    data = read_multilabel(features)
    chosen = fit_multilabel(features, data, MultiSpec(cv=3)).metrics["selection"]
    assert chosen["corrected"]["value"] < chosen["naive"]["value"]
    assert chosen["corrected"]["low"] < data.train.Y.mean() < chosen["corrected"]["high"]


def test_voc07_is_another_measure_of_the_same(make_features):
    features = planted(make_features, 80)
    data = read_multilabel(features)
    area, points = (
        fit_multilabel(features, data, MultiSpec(("late",), ("std",), cv=2, ap=ap)) for ap in ("area", "voc07")
    )
    assert area.metrics["test"]["map"] != points.metrics["test"]["map"]
    assert points.metrics["ap"] == "voc07"


@pytest.mark.parametrize("wrong", [{"transforms": ("pcaw",)}, {"ap": "coco"}, {"cv": 1}, {"transforms": ()}])
def test_options_that_do_not_go_are_refused(wrong):
    with pytest.raises(OptionError):
        MultiSpec(**wrong)


def draw_shapes(path: Path, names: list[str], rng: np.random.Generator) -> None:
    image = Image.fromarray(rng.integers(90, 130, (32, 32, 3), np.uint8))
    brush = ImageDraw.Draw(image)
    for name in names:
        x, y = rng.integers(0, 18, 2).tolist()
        shape, colour = SHAPES[name]
        getattr(brush, shape)((x, y, x + 12, y + (4 if name == "bar" else 12)), fill=colour)
    image.save(path)


def test_shapes_are_told_apart_from_a_manifest_of_several_labels(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["path,label"]
    for number in range(90):
        names = [name for name in SHAPES if rng.random() < 0.5]
        draw_shapes(tmp_path / f"{number:02}.png", names, rng)
        lines.append(f"{number:02}.png,{'|'.join(names) or '-'}")
    (tmp_path / "shapes.csv").write_text("\n".join(lines) + "\n")
    done = extract(tiny_spec(tmp_path / "shapes.csv", tmp_path / "cache", weights="auto", taps=("penultimate",)))
    features = features_of(done)
    data = read_multilabel(features)
    found = fit_multilabel(features, data, MultiSpec(transforms=("std",), cv=3))
    assert data.classes == sorted(SHAPES)
    assert found.metrics["labels"]["several"] > 20
    assert found.metrics["test"]["map"]["value"] > 0.8
    assert found.metrics["test"]["map"]["value"] > found.metrics["baseline"] + 0.25
    again = bundled(features, found, tmp_path / "bundle")
    blocks = {layer: features.read(layer, data.test.rows) for layer in found.layers}
    np.testing.assert_allclose(again.probabilities(blocks), expit(found.scores), atol=1e-6)
    np.testing.assert_array_equal(again.label_thresholds, found.thresholds)


def bundled(features: FeatureSet, found: MultiFit, folder: Path) -> Bundle:
    head = "logistic", "linear", found.params, found.classes, 1.0, found.linear.arrays()
    made = Bundle(
        features.recipe, found.layers, found.transform, *head, task="multi", label_thresholds=tuple(found.thresholds)
    )
    test = read_multilabel(features).test.rows
    blocks = {layer: features.read(layer, test) for layer in found.layers}
    write_bundle(folder, made, weights=features.weights_path, blocks=blocks, expected=found.scores)
    return read_bundle(folder)
