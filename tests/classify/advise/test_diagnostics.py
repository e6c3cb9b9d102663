import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classify.advise import diagnostics, shift
from classify.advise.diagnostics import diagnose
from classify.advise.leep import leep, source_shares
from classify.advise.scores import h_score, logme, neighbours_say
from classify.finetune.images import Source, find_source
from classify.inputs import Inputs, open_for_fit, read_inputs
from classify.spec import FitSpec
from extract.progress import Silent
from extract.run import extract
from tests.tiny import tiny_folder, tiny_spec

KEYS = {"batch_norm_shift", "leep", "logme", "h_score", "knn", "notes"}
PER_CLASS = 170


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A cache of features of 340 images by the built-in network as it was trained."""
    folder = tmp_path_factory.mktemp("diagnostics")
    data = tiny_folder(folder / "photos", per_class=PER_CLASS)
    extract(tiny_spec(data, folder / "cache", weights="CIFAR10", name="photos"))
    return folder


def opened(folder: Path, **changes) -> tuple[FitSpec, Inputs, Source]:
    known = {"cache": folder / "cache", "jobs": 2, "device": "cpu", "duplicates": "off", "cv": 3}
    spec = FitSpec("photos", **known | changes)
    inputs = read_inputs(spec, open_for_fit(spec), Silent())
    return spec, inputs, find_source(inputs.features, inputs.data.train.rows, None, None)


def test_everything_is_measured_and_is_json(made):
    spec, inputs, source = opened(made)
    found = diagnose(spec, inputs, source, Silent())
    assert found.keys() == KEYS
    assert found["notes"] == []
    train, features = inputs.data.train, inputs.features
    X = features.read("penultimate", train.rows)
    assert found["logme"] == pytest.approx(logme(X, train.y))
    assert found["h_score"] == pytest.approx(h_score(X, train.y))
    assert found["leep"] == pytest.approx(leep(source_shares(features, train.rows), train.y))
    assert found["knn"]["value"] == (neighbours_say(X, train.y, train.groups, 20)[0] == train.y).mean()
    assert found["knn"]["low"] < found["knn"]["value"] < found["knn"]["high"]
    assert [each["layer"] for each in found["batch_norm_shift"]][:2] == ["bn1", "layer1.0.bn1"]
    assert all(0 < each["shift"] < 100 for each in found["batch_norm_shift"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_it_comes_out_the_same_again_and_without_the_images(made, monkeypatch):
    spec, inputs, source = opened(made)
    first = diagnose(spec, inputs, source, Silent())
    monkeypatch.setattr(shift, "ImageExamples", None)  # what is known of them needs no second look
    assert diagnose(spec, inputs, None, Silent()) == first


def test_without_images_all_but_the_shift_is_measured(made):
    spec, inputs, _ = opened(made, seed=1)
    found = diagnose(spec, inputs, None, Silent())
    assert found["batch_norm_shift"] is None
    assert found["notes"] == ["no shift of BatchNorm: the images are not at hand"]
    assert None not in (found["leep"], found["logme"], found["h_score"], found["knn"])


def test_few_images_and_random_weights_say_what_they_lack(tmp_path, monkeypatch):
    data = tiny_folder(tmp_path / "photos", per_class=10)
    extract(tiny_spec(data, tmp_path / "cache", name="photos", taps=("layer1",)))
    asked = opened(tmp_path)
    found = diagnose(*asked, Silent())
    assert (found["batch_norm_shift"], found["leep"], found["knn"]["k"]) == (None, None, 15)
    assert sorted(note.partition(":")[0] for note in found["notes"]) == ["no LEEP", "no shift of BatchNorm"]
    assert "16 training images are fewer than the 256" in " ".join(found["notes"])
    monkeypatch.setattr(shift, "IMAGES", 8)
    assert any("never trained" in note for note in diagnose(*asked, Silent())["notes"])


def test_images_that_were_changed_are_said(made, tmp_path):
    spec, inputs, _ = opened(made, seed=2)
    others = tiny_folder(tmp_path / "photos", per_class=PER_CLASS, seed=5000)
    found = diagnose(spec, inputs, find_source(inputs.features, inputs.data.train.rows, str(others), None), Silent())
    assert found["batch_norm_shift"] is None
    assert [note for note in found["notes"] if "another image" in note]


def test_weights_that_are_gone_cost_what_needs_them_and_say_so(made, tmp_path):
    shutil.copytree(made / "cache", tmp_path / "cache")
    spec, inputs, source = opened(tmp_path, seed=3)
    inputs.features.weights_path.unlink()
    found = diagnose(spec, inputs, source, Silent())
    assert (found["batch_norm_shift"], found["logme"] is None) == (None, False)
    assert any(note.startswith("no shift of BatchNorm: no such weights file") for note in found["notes"])


@pytest.mark.parametrize(("limit", "value"), [("MOST", 60), ("MOST_NUMBERS", 60 * 128)])
def test_at_most_so_many_images_are_looked_at(made, monkeypatch, limit, value):
    monkeypatch.setattr(diagnostics, limit, value)
    looked = []
    monkeypatch.setattr(diagnostics, "neighbours_say", lambda X, y, groups, k: (looked.append(len(X)), (y, k))[1])
    spec, inputs, source = opened(made)
    assert diagnose(spec, inputs, source, Silent())["knn"]["value"] == 1
    assert looked == [60]


def test_twins_do_not_speak_for_each_other(tmp_path, monkeypatch):
    """Noise, each picture twice under labels drawn: only a twin would know them."""
    monkeypatch.setattr(diagnostics, "NEIGHBOURS", 1)
    rng = np.random.default_rng(0)
    for at, kind in enumerate(rng.integers(0, 2, 60)):
        folder = tmp_path / "photos" / ("cat", "dog")[kind]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
        for twin in "ab":
            image.save(folder / f"{at:02}{twin}.png")
    extract(tiny_spec(tmp_path / "photos", tmp_path / "cache", weights="CIFAR10", name="photos"))
    spec, inputs, source = opened(tmp_path)
    assert inputs.data.train.groups is not None
    found = diagnose(spec, inputs, source, Silent())
    assert found["knn"]["value"] < 0.75
