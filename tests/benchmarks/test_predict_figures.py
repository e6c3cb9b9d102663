"""The figures of predictions: skipped where there is no data, and a goal of reuse that can be missed."""

import pytest

from benchmarks.predict import runs, speed
from benchmarks.predict.runs import Run

pytest.importorskip("onnxruntime")

from benchmarks.predict.__main__ import SUITE


@pytest.mark.parametrize("name", SUITE.measurements)
def test_without_weights_and_images_a_measurement_says_that_it_was_skipped(tmp_path, monkeypatch, name):
    monkeypatch.setattr(runs, "data_folder", lambda: tmp_path)
    line = SUITE.measured(name, quick=True)
    assert line["note"].startswith("Skipped: there are no weights and images")
    assert (line["rows"], line["goals"]) == ([], [])


@pytest.mark.parametrize(("found", "met"), [("1,000", True), ("999", False)])
def test_all_images_of_a_cache_are_to_be_reused(tmp_path, found, met):
    done = {"n": 1000, "said": [f"{found} of 1,000 images have their features in there; the others were computed"]}
    goal = speed._reuse(Run("resnet", tmp_path, tmp_path, tmp_path), done)
    assert (goal.measured, goal.met) == (f"{found} of 1,000 images", met)
    assert speed._reuse(Run("resnet", tmp_path, tmp_path, tmp_path), {"n": 1000, "said": []}).met is False
