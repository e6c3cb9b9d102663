import shutil
from pathlib import Path

import numpy as np
import pytest

import classify.predict as module
from classify.fit import FitSpec, fit
from classify.predict import PredictSpec, evaluate_run, predict, records_of
from extract.progress import Silent
from extract.run import extract
from tests.tiny import tiny_folder, tiny_spec


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A folder with `data`, 12 images of two classes, and `run`, a run on them."""
    work = tmp_path_factory.mktemp("predict")
    data = tiny_folder(work / "data", per_class=6)
    done = extract(tiny_spec(data, work / "cache", taps=("penultimate",)))
    fit(FitSpec(done["features"], cache=work / "cache", out=work / "run", cv=2, jobs=1))
    return work


class Overflowing:
    """An extractor whose second row of every batch of four is beyond float32."""

    batch_size = 4

    def __init__(self, *args, real=module.rebuild_extractor, **options) -> None:
        self.real = real(*args, **options)
        self.recipe, self.dims, self.send = self.real.recipe, self.real.dims, self.real.send

    def __call__(self, pixels):
        rows = self.real(pixels)
        rows["penultimate"][1] = np.inf
        return rows


def test_features_that_are_no_numbers_are_a_bad_row(fitted, monkeypatch):
    monkeypatch.setattr(module, "rebuild_extractor", Overflowing)
    spec = PredictSpec(str(fitted / "run"), device="cpu", workers=1)
    answers = list(predict(spec, records_of((str(fitted / "data"),)), Silent()))
    assert [answer["status"] for answer in answers] == (["ok", "not finite", "ok", "ok"] * 3)
    assert answers[1]["label"] is None
    assert answers[1]["reason"] == "features beyond the range of float32"
    assert evaluate_run(spec, str(fitted / "data"), None, Silent())["n_bad"] == 3


@pytest.mark.parametrize("one_grouped", [False, True])
def test_copies_do_not_narrow_an_interval(fitted, tmp_path, one_grouped):
    lines = ["path,label,group"]
    for path in sorted((fitted / "data").rglob("*.*")):
        for copy in range(5):
            name = f"{path.parent.name}-{copy}-{path.name}"
            shutil.copy(path, tmp_path / name)
            lines.append(f"{name},{path.parent.name},{'g' if one_grouped and len(lines) == 1 else ''}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    spec = PredictSpec(str(fitted / "run"), device="cpu", workers=1)
    once = evaluate_run(spec, str(fitted / "data"), None, Silent())["metrics"]["accuracy"]
    copied = evaluate_run(spec, str(tmp_path / "m.csv"), None, Silent())["metrics"]["accuracy"]
    assert copied["value"] == pytest.approx(once["value"])
    assert copied["high"] - copied["low"] == pytest.approx(once["high"] - once["low"], abs=0.05)
