import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_run import put_bundle, tiny_bundle, tiny_features

import pipeline
from classify.archive import read_run
from classify.export import story
from classify.export.compare import Roads
from classify.export.program import Program
from classify.export.story import FORMS, ExportSpec, export_run
from classify.predict import PredictSpec, open_run, predict, records_of
from extract import devices
from extract.errors import ExportError, OptionError
from extract.progress import Silent
from extract.store import FeatureSet

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> tuple[Path, FeatureSet]:
    """A folder with `data` and `run`, and the features that the run is made of."""
    folder = tmp_path_factory.mktemp("export")
    features = tiny_features(folder)
    put_bundle(folder / "run", tiny_bundle(features), features)
    return folder, features


def exported(work: tuple[Path, FeatureSet], output: Path, **known: Any) -> dict[str, Any]:
    run = known.pop("run", work[0] / "run")
    return export_run(ExportSpec(str(run), output, device="cpu", batch_size=4, workers=1, **known), Silent())


@pytest.fixture(scope="module")
def kept(work, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A program that was compared on the images of the run, and what was said of it."""
    path = tmp_path_factory.mktemp("kept") / "a.onnx"
    return path, exported(work, path, data=str(work[0] / "data"))


def test_what_is_kept_was_compared_with_predict_on_the_images(kept):
    path, done = kept
    assert (done["bytes"], done["sha256"]) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert (done["checked"]["n"], done["checked"]["other_labels"]) == (12, 0)
    assert done["checked"]["gap"] < 1e-5
    assert done["int8"] is None
    assert done["input"] == ["N", 3, 32, 32]


def test_the_file_answers_as_predict_does_for_who_has_no_package_of_ours(work, kept):
    session = onnxruntime.InferenceSession(kept[0])
    facts = session.get_modelmeta().custom_metadata_map
    records = records_of((str(work[0] / "data"),))
    spec = PredictSpec(str(work[0] / "run"), device="cpu", workers=1)
    expected = list(predict(spec, records, Silent()))
    pixels = next(Roads(open_run(spec)[0], 16, 1, Silent()).pixels(tuple(records)))
    [shares] = session.run(None, {"pixels": pixels})
    names = json.loads(facts["classes"])
    assert [names[i] for i in shares.argmax(axis=1)] == [answer["label"] for answer in expected]
    assert shares.max(axis=1) == pytest.approx([answer["probability"] for answer in expected], abs=1e-4)


def test_torch_needs_no_extra_and_images_of_our_own_will_do(work, tmp_path, monkeypatch):
    monkeypatch.setattr(story, "need", None)
    done = exported(work, tmp_path / "a.pt2", form="torch")
    assert done["checked"]["on"] == "5 golden images and 8 of noise"
    assert done["checked"]["n"] == 13
    assert FORMS["torch"].read((tmp_path / "a.pt2").read_bytes())(np.zeros((3, 3, 32, 32), np.uint8)).shape == (3, 3)


def test_a_program_that_answers_otherwise_leaves_no_file(work, tmp_path, monkeypatch):
    forward = Program.forward
    monkeypatch.setattr(Program, "forward", lambda self, pixels: forward(self, pixels) * 0.99)
    (tmp_path / "a.pt2").write_bytes(b"of before")
    with pytest.raises(ExportError, match="answers otherwise than predict"):
        exported(work, tmp_path / "a.pt2", form="torch")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"of before"]


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match="another --output"):
        story._write(tmp_path / "file" / "a.pt2", b"")


def test_an_archive_is_the_bundle_and_is_read_back(work, tmp_path):
    done = exported(work, tmp_path / "a.zip", form="zip")
    assert done["bytes"] == (tmp_path / "a.zip").stat().st_size
    assert done["checked"] is None
    assert read_run(str(tmp_path / "a.zip")).classes == done["classes"] == ["cat", "dog", "eel"]
    again = exported(work, tmp_path / "b.zip", form="zip", run=tmp_path / "a.zip")
    assert again["sha256"] == done["sha256"]


def test_int8_tells_what_it_loses(work, tmp_path):
    done = exported(work, tmp_path / "a.onnx", int8=True, data=str(work[0] / "data"))
    int8 = done["int8"]
    assert (int8["n"], int8["n_ranges"]) == (6, 6)
    assert int8["bytes_fp32"] > 2 * done["bytes"]
    assert int8["gap"] > done["checked"]["gap"]
    lost = int8["accuracy"]
    assert lost["loss"]["value"] == pytest.approx(lost["fp32"] - lost["int8"])
    nodes = onnx.load(tmp_path / "a.onnx").graph.node
    kinds = [node.op_type for node in nodes]
    assert "QuantizeLinear" in kinds
    facts = {each.key for each in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert {"classes", "resize_size"} <= facts


def test_a_run_in_half_precision_is_compared_in_full_and_the_difference_told(work, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "computes_bf16", lambda _: True)  # it may be emulated here
    features = tiny_features(tmp_path, precision="bf16")
    put_bundle(tmp_path / "run", tiny_bundle(features), features)
    done = exported(work, tmp_path / "a.pt2", form="torch", run=tmp_path / "run")
    assert done["checked"]["gap"] < 1e-4 < done["checked"]["rounded"]["gap"]
    assert done["checked"]["rounded"]["precision"] == "bf16"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"int8": True}, "only be measured on images"),
        ({"int8": True, "form": "torch", "data": "x"}, "int8 is for ONNX"),
        ({"form": "onx"}, "nearest: 'onnx'"),
        ({"form": "zip"}, r"an archive is called \*\.zip"),
    ],
)
def test_wishes_that_cannot_be_fulfilled_are_refused(known, said):
    with pytest.raises(OptionError, match=said):
        ExportSpec("run", Path("a"), **known)


def command(*args: object) -> str:
    done = CliRunner().invoke(pipeline.main, ["export", *map(str, args)])
    assert done.exit_code == 0, done.output + done.stderr
    return done.stdout


def test_the_command_says_what_was_compared(work, tmp_path):
    assert command(work[0] / "run", "-o", tmp_path / "a.zip", "--format", "zip").startswith("Bundle: ")
    said = command(work[0] / "run", "-o", tmp_path / "a.pt2", "--format", "torch", "-j", 1, "--device", "cpu")
    assert "Compared with predict on 13 images (5 golden images and 8 of noise)" in said
    assert "pixels N x 3 x 32 x 32 uint8 -> 3 classes" in said


def test_the_command_tells_the_loss_of_int8(monkeypatch, tmp_path):
    accuracy = {"n": 9, "fp32": 0.9, "int8": 0.85, "loss": {"value": 0.05, "low": 0.01, "high": 0.09}}
    checked = {"on": "images of x", "n": 9, "gap": 1e-6, "tolerance": 1e-4, "other_labels": 0}
    checked["rounded"] = {"precision": "bf16", "n": 9, "other_labels": 1, "gap": 0.02}
    int8 = {"n": 9, "n_ranges": 5, "other_labels": 2, "gap": 0.2, "bytes_fp32": 4000, "accuracy": accuracy}
    done = {"path": "a.onnx", "bytes": 1000, "input": ["N", 3, 8, 8], "classes": ["a"], "checked": checked}
    monkeypatch.setattr(story, "export_run", lambda spec, progress: {**done, "int8": int8})
    said = command("run", "-o", tmp_path / "a.onnx", "--int8", "--data", "x")
    assert "90.0% in fp32, 85.0% in int8, a loss of 5.0%  [1.0%, 9.0%]" in said
    assert "bf16" in said
    unlabelled = {**done, "int8": {**int8, "accuracy": None}}
    monkeypatch.setattr(story, "export_run", lambda spec, progress: unlabelled)
    assert "no labels" in command("run", "-o", tmp_path / "a.onnx", "--int8", "--data", "x")


@pytest.mark.skipif(os.name != "posix", reason="pipes and links")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("there.onnx")])
def test_what_is_no_file_is_never_replaced_by_one(tmp_path, make):
    path = tmp_path / "a.onnx"
    make(path)
    before = path.lstat().st_mode
    with pytest.raises(OptionError, match="would be replaced"):
        ExportSpec("run", path)
    assert path.lstat().st_mode == before
