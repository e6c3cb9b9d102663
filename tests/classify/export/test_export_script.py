"""The script of the documentation sees what `predict` sees: executed as it stands there."""

import re
from pathlib import Path

import pytest
from tiny_run import put_bundle, tiny_bundle, tiny_features

import pipeline
from classify.export.story import ExportSpec, export_run
from classify.predict import PredictSpec, predict, records_of
from extract.progress import Silent
from extract.spec import BackboneSpec
from tests.tiny import picture

for name in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(name)

PAGE = Path(pipeline.__file__).parent / "docs" / "export.md"


def script() -> str:
    [body] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return body


def test_the_script_names_no_package_but_the_three():
    assert set(re.findall(r"^(?:import|from) (\w+)", script(), re.MULTILINE)) == {
        "json", "numpy", "onnxruntime", "PIL",
    }  # fmt: skip
    assert len([line for line in script().splitlines() if line and not re.match("import|from", line)]) == 10


def test_the_script_answers_as_predict_does(tmp_path, monkeypatch, capsys):
    overrides = (("resize_size", 37), ("crop_size", 32))
    features = tiny_features(tmp_path, backbone=BackboneSpec("builtin", "none", overrides=overrides))
    run = put_bundle(tmp_path / "run", tiny_bundle(features), features)
    export_run(ExportSpec(str(run), tmp_path / "photos.onnx", device="cpu", workers=1), Silent())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    path = tmp_path / "new" / "a.jpg"
    for size in ((90, 61), (33, 120)):
        picture(7, size).save(path)
        [expected] = predict(PredictSpec(str(run), device="cpu", workers=1), records_of((str(path),)), Silent())
        exec(compile(script(), str(PAGE), "exec"), {})  # noqa: S102 our own page
        label, share = capsys.readouterr().out.split()
        assert label == expected["label"]
        assert float(share) == pytest.approx(expected["probability"], abs=2e-3)
