import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pipeline
from classify.advise import trainer as trainers
from classify.bundle import read_bundle
from classify.finetune import story
from classify.finetune.training import Training
from classify.fit import fit
from classify.spec import FitSpec
from classify.tuning import TuneSpec
from extract.errors import TrainingError
from extract.store import open_features
from extract.store.folders import TRAININGS
from tests.classify.advise.little_around import little_around
from tests.classify.finetune.tiny_story import QUICK, mislabelled

AMPLE_S = 1e7
KNOWN = {"cv": 3, "jobs": 1, "duplicates": "off", "device": "cpu"}
Auto = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with little_around("classify.advise.auto"):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, the features of them in cache/, and labels.csv: every third image has a wrong one."""
    return mislabelled(tmp_path_factory.mktemp("auto"))


@pytest.fixture(scope="module")
def auto(root: Path) -> Auto:
    def start(out: str, **changes: Any) -> dict[str, Any]:
        fields = {name: changes.pop(name) for name in list(changes) if name not in TuneSpec.__dataclass_fields__}
        fields = KNOWN | {"labels": root / "labels.csv", "strategy": "auto", "out": root / out} | fields
        known = QUICK | {"budget_s": AMPLE_S} | changes
        return fit(FitSpec("photos", cache=root / "cache", tune=TuneSpec(**known), **fields))

    return start


def rows_of(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["rung"]: row for row in metrics["advice"]["ladder"]}


@pytest.fixture
def perfect_tail(monkeypatch) -> None:
    """Let what is answered for folds by the tail be right, whatever its network says; the others' is not trained."""

    def answered(bench, ground, at, setting, plain=story.train_fold):
        trained, scores = plain(bench, ground, at, setting)
        y = bench.inputs.data.train.y[ground.folds[at][1]]
        return trained, np.eye(scores.shape[1])[y] if bench.spec.strategy == "tail" else scores

    monkeypatch.setattr(trainers, "train_fold", answered)


def test_the_rung_that_is_taken_writes_the_run_that_its_command_would_and_nothing_is_trained_twice(
    root, auto, perfect_tail, monkeypatch
):
    steps: list[str] = []
    monkeypatch.setattr(
        Training, "take", lambda self, batch, plain=Training.take: steps.append(self.job.name) or plain(self, batch)
    )
    metrics = auto("taken")
    rows = rows_of(metrics)
    assert (rows["tail"]["accepted"], rows["lp-ft"]["accepted"]) == (True, False)
    assert metrics["strategy"] == metrics["finetune"]["strategy"] == "tail"
    assert metrics["advice"]["recommendation"]["strategy"] == "tail"
    assert json.loads((root / "taken" / "metrics.json").read_text()) == metrics
    assert (root / "taken" / "training.csv").is_file()
    assert not list((open_features("photos", root / "cache").folder / TRAININGS).glob("*"))
    n_folds = rows["tail"]["settings"]["folds"]
    assert n_folds == 3
    assert metrics["gain"]["out_of_fold"]["n"] == metrics["n_train"] == rows["tail"]["n"]
    assert steps.count("on all images") == 6
    assert steps.count("without fold 2") == 6 * (1 + sum(rows[r]["tried"] and rows[r]["settings"]["folds"] > 1
                                                         for r in ("lp-ft", "full", "scratch")))  # fmt: skip
    said = [*rows["tail"]["command"][1:], "--out", str(root / "said"), "-j", "1", "--json"]
    result = CliRunner().invoke(pipeline.main, said)
    assert result.exit_code == 0, result.output
    mine, same = (read_bundle(root / name / "bundle") for name in ("taken", "said"))
    assert same.recipe.weights_sha256 == mine.recipe.weights_sha256
    np.testing.assert_array_equal(same.arrays["coef"], mine.arrays["coef"])
    assert json.loads(result.stdout)["advice"] is None


def test_a_climb_that_was_stopped_goes_on_where_it_was(root, auto, perfect_tail, monkeypatch):
    steps: list[str] = []

    def counted(training: Training, batch: Any, plain=Training.take) -> None:
        if training.job.name.startswith("without fold"):
            steps.append(training.job.name)
            if len(steps) == 9:
                raise KeyboardInterrupt
        plain(training, batch)

    monkeypatch.setattr(Training, "take", counted)
    with pytest.raises(KeyboardInterrupt):
        auto("stopped", checkpoint_s=1e-6)
    assert not (root / "stopped").exists()
    assert auto("stopped", checkpoint_s=1e-6)["strategy"] == "tail"
    assert len(steps) == 3 * 6 + 1  # three folds of six steps; one step was not taken


def test_where_the_last_training_fails_the_run_is_that_of_the_probe_and_says_so(root, auto, perfect_tail, monkeypatch):
    def failing(training: Training, batch: Any, plain=Training.take) -> None:
        if training.job.name == "on all images":
            raise TrainingError("no room", where=training.job.name, remedy="Make some")
        plain(training, batch)

    monkeypatch.setattr(Training, "take", failing)
    metrics = auto("failed")
    tail = rows_of(metrics)["tail"]
    assert (tail["tried"], tail["accepted"], tail["why"]) == (True, True, "failed")
    assert tail["reason"].endswith("its last training failed: on all images: no room. Make some")
    assert (
        sum("tail surely gains over linear, but its last training failed" in said for said in metrics["warnings"]) == 1
    )
    assert metrics["strategy"] == metrics["advice"]["recommendation"]["strategy"] == "linear"
    assert "finetune" not in metrics
    assert json.loads((root / "failed" / "metrics.json").read_text()) == metrics
    assert not list((open_features("photos", root / "cache").folder / TRAININGS).glob("*"))


def test_where_nothing_surely_gains_the_run_is_that_of_the_probe(root, auto):
    metrics = auto("kept")
    rows = rows_of(metrics)
    assert rows["tail"]["tried"]
    assert [rung for rung, row in rows.items() if row["accepted"]] == ["linear"]
    assert metrics["strategy"] == "linear"
    assert "finetune" not in metrics
    assert not list((open_features("photos", root / "cache").folder / TRAININGS).glob("*"))
    known = KNOWN | {"cache": root / "cache", "labels": root / "labels.csv", "strategy": "linear"}
    plain = fit(FitSpec("photos", out=root / "plain", **known))
    other = {"advice", "seconds", "run", "search", "per_layer", "command"}
    assert {name: value for name, value in metrics.items() if name not in other} == {
        name: value for name, value in plain.items() if name not in other
    }
    mine, same = (read_bundle(root / name / "bundle") for name in ("kept", "plain"))
    np.testing.assert_array_equal(mine.arrays["coef"], same.arrays["coef"])
    advice = metrics["advice"]
    json.dumps(advice, allow_nan=False)
    assert advice["case"]["n_train"] == metrics["n_train"]
    assert advice["learning_curve"]["points"] == metrics["learning_curve"]["points"]
    assert advice["depth_profile"]["n"] == metrics["n_train"]
    assert (advice["budget_s"], advice["min_gain"]) == (AMPLE_S, 0.01)
    assert 0 < advice["seconds"] <= metrics["seconds"]
    assert advice["recommendation"]["words"]


def test_without_time_nothing_is_trained_and_what_each_takes_is_said(auto):
    metrics = auto("hurried", budget_s=0.01)
    rows = rows_of(metrics)
    assert metrics["strategy"] == "linear"
    tried = [row for row in rows.values() if row["rung"] not in ("linear", "taps", "scratch")]
    assert {(row["tried"], row["why"]) for row in tried} == {(False, "time")}
    assert all(row["predicted"]["p"] > 0.2 for row in tried)


def test_without_images_the_probe_is_kept_and_why_is_said(auto):
    metrics = auto("unseen", data="gone")
    rows = rows_of(metrics)
    assert metrics["strategy"] == "linear"
    assert {rows[rung]["why"] for rung in list(rows)[1:]} == {"prevented"}
    assert "--data DATA" in rows["tail"]["reason"]
    assert metrics["advice"]["depth_profile"] is None


def test_images_that_are_told_apart_already_are_not_trained_on(auto, monkeypatch):
    monkeypatch.setattr(Training, "take", lambda *_: pytest.fail("nothing is to be trained"))
    metrics = auto("easy", labels=None)
    assert metrics["cv"]["accuracy"]["value"] == 1
    assert {row["why"] for row in list(rows_of(metrics).values())[1:]} <= {"unlikely", "prevented"}
