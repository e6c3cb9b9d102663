import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from classify.fit import FitSpec, fit
from classify.predict import PredictSpec, evaluate_run, predict, records_of
from extract.progress import Silent
from extract.run import extract
from extract.runners.network import Network
from tests.tiny import tiny_folder, tiny_spec


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A folder with `data`, 12 images of two classes, and `run`, a run on them."""
    work = tmp_path_factory.mktemp("predict")
    data = tiny_folder(work / "data", per_class=6)
    done = extract(tiny_spec(data, work / "cache", taps=("penultimate",)))
    fit(FitSpec(done["features"], cache=work / "cache", out=work / "run", cv=2, jobs=1))
    return work


@pytest.fixture
def overflowing(monkeypatch) -> None:
    """Have the second row of every batch be beyond float32."""
    forward = Network.forward

    def overflow(self: Network, pixels: Tensor) -> dict[str, Tensor]:
        rows = forward(self, pixels)
        rows["penultimate"][1] = torch.inf
        return rows

    monkeypatch.setattr(Network, "forward", overflow)


@pytest.mark.usefixtures("overflowing")
def test_features_that_are_no_numbers_are_a_bad_row(fitted):
    spec = PredictSpec(str(fitted / "run"), device="cpu", workers=1, batch_size=4)
    answers = list(predict(spec, records_of((str(fitted / "data"),)), Silent()))
    assert [answer["status"] for answer in answers] == (["ok", "not finite", "ok", "ok"] * 3)
    assert answers[1]["label"] is None
    assert answers[1]["reason"] == "features beyond the range of float32"
    assert evaluate_run(spec, str(fitted / "data"), None, Silent())["n_bad"] == 3


def test_neither_batch_size_nor_workers_change_an_answer(fitted):
    records = records_of((str(fitted / "data"),))
    first, *others = (
        list(
            predict(
                PredictSpec(str(fitted / "run"), device="cpu", batch_size=batch, workers=workers), records, Silent()
            )
        )
        for batch, workers in ((1, 1), (5, 3), (None, 2))
    )
    assert [answer["id"] for answer in first] == [record.id for record in records]
    for other in others:
        for one, same in zip(first, other, strict=True):
            assert {**same, "probability": 0, "top": []} == {**one, "probability": 0, "top": []}
            assert same["probability"] == pytest.approx(one["probability"], abs=1e-5)


@pytest.mark.usefixtures("no_thread_left")
def test_answers_that_nobody_waits_for_leave_no_thread(fitted):
    spec = PredictSpec(str(fitted / "run"), device="cpu", workers=1, batch_size=1)
    answers = predict(spec, records_of((str(fitted / "data"),)), Silent())
    assert next(answers)["status"] == "ok"
    answers.close()


def test_a_run_on_many_views_predicts_from_the_centre(fitted, tmp_path):
    spec = tiny_spec(fitted / "data", tmp_path / "cache", taps=("penultimate", "layer2:map"), views=3)
    done = extract(spec)
    fit(FitSpec(done["features"], cache=tmp_path / "cache", out=tmp_path / "run", cv=2, jobs=1))
    records = records_of((str(fitted / "data"),))
    seen, plain = (
        list(predict(PredictSpec(str(run), device="cpu"), records, Silent()))
        for run in (tmp_path / "run", fitted / "run")
    )
    assert [answer["label"] for answer in seen] == [answer["label"] for answer in plain]
    assert [answer["probability"] for answer in seen] == pytest.approx([a["probability"] for a in plain], abs=1e-3)


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
