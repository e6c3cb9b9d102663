import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tiny_story import CLASSES, PER_CLASS, extract_photos, tune, write_photos

import pipeline
from classify.bundle import read_bundle
from classify.calibrate import softmax
from classify.finetune import ground as grounds
from classify.finetune import story
from classify.finetune.begin import begin, fit_head
from classify.finetune.bench import Bench
from classify.finetune.deploy import deploy
from classify.finetune.evidence import Course, Held, told
from classify.finetune.job import Outcome
from classify.finetune.pace import measure_pace
from classify.finetune.site import Site
from classify.finetune.trained import Trained, train_one
from classify.finetune.training import Training
from classify.inputs import open_for_fit, read_inputs
from classify.linear import fit_probe
from classify.predict import PredictSpec, predict, records_of
from classify.scoring import SCORERS
from classify.spec import FitSpec
from classify.tuning import STRATEGIES, TuneSpec
from extract.errors import FitError, OffshelfError, OptionError, TapError
from extract.parts import whole_state
from extract.progress import Silent
from extract.store import FeatureSet, open_features
from extract.store.folders import TRAININGS

Tune = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ and the features of them in cache/."""
    folder = tmp_path_factory.mktemp("story")
    extract_photos(write_photos(folder / "photos"), folder / "cache")
    return folder


@pytest.fixture(scope="module")
def run(root: Path) -> Tune:
    """Fine-tune by a strategy, once; the run lies in `root / strategy`."""
    return cache(lambda strategy: tune(root, strategy))


@pytest.fixture
def features(root: Path) -> FeatureSet:
    return open_features("photos", root / "cache")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_is_whole_says_what_was_trained_and_leaves_no_checkpoint(strategy, root, run, features):
    metrics, folder = run(strategy), root / strategy
    names = {"bundle", "findings", "metrics.json", "out_of_fold.csv", "predictions.csv", "report.html", "training.csv"}
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert (metrics["strategy"], metrics["layers"], metrics["transform"]) == (strategy, ["penultimate"], "none")
    found = metrics["finetune"]
    assert found["cached"] == (strategy == "tail")
    assert found["kept_until"] == ("layer2" if strategy == "tail" else None)
    assert [each["name"] for each in found["trainings"]] == ["without fold 1", "on all images"]
    assert [each["deployed"] for each in found["trainings"]] == [False, True]
    assert found["history"][-1]["step"] == 6
    looks = rows_of(folder / "training.csv")
    assert {row["training"].partition(",")[0] for row in looks} == {"without fold 1", "on all images"}
    assert "Was fine-tuning worth it?" in (folder / "report.html").read_text()
    assert not list((features.folder / TRAININGS).glob("*"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_scores_of_a_run_are_what_its_bundle_predicts(strategy, root, run):
    run(strategy)
    records = records_of((str(root / "photos" / "test"),))
    said = {row["id"].rpartition("test/")[2]: row for row in rows_of(root / strategy / "predictions.csv")}
    spec = PredictSpec(str(root / strategy), device="cpu", workers=1)
    answers = list(predict(spec, records, Silent()))
    assert len(answers) == len(said) == PER_CLASS["test"] * len(CLASSES)
    for answer in answers:
        row = said[answer["id"].rpartition("test/")[2]]
        assert answer["label"] == row["predicted"]
        assert answer["probability"] == pytest.approx(float(row["probability"]), abs=1e-5)


def test_a_run_is_held_against_the_probe_on_the_same_images(run):
    metrics = run("tail")
    gain = metrics["gain"]["test"]["accuracy"]
    difference = metrics["test"]["accuracy"]["value"] - metrics["probe"]["test"]["accuracy"]["value"]
    assert gain["value"] == pytest.approx(difference)
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert metrics["gain"]["out_of_fold"]["n"] == metrics["n_train"] / 3
    assert (metrics["probe"]["layers"], metrics["probe"]["head"]) != (metrics["layers"], metrics["head"])
    assert metrics["calibration"]["calibrated_on"] == "out of fold"


def test_what_is_kept_keeps_its_weights_and_what_trains_does_not(root, run, features):
    before = load_file(features.weights_path)
    metrics, kept = run("tail"), load_file(root / "tail" / "bundle" / "weights.safetensors")
    same = {name: torch.equal(value, kept[name]) for name, value in before.items()}
    trunk = {name for name in same if name.startswith(("conv1", "bn1", "layer1", "layer2"))}
    assert trunk
    assert all(same[name] for name in trunk)
    assert not any(same[name] for name in same.keys() - trunk if name.endswith("conv1.weight"))
    norms = [name for name in same if "running" in name]
    assert all(same[name] for name in norms)  # BatchNorm is frozen above the cut, too
    frozen = metrics["finetune"]["frozen"]
    assert frozen["before"] == frozen["after"]
    assert frozen["parameters"] > sum(before[name].numel() for name in trunk if name.endswith("weight"))


def with_bench(root: Path, strategy: str, **changes: Any) -> Iterator[tuple[Bench, grounds.Ground]]:
    how = TuneSpec(steps=6, batch_size=16, rates=(0.03,), **changes)
    spec = FitSpec("photos", cache=root / "cache", strategy=strategy, tune=how, cv=3, jobs=1, duplicates="off")
    features = open_for_fit(spec)
    inputs = read_inputs(spec, features, Silent())
    ground = grounds.survey(spec, inputs)
    probe = fit_probe(spec, inputs, Silent())
    with grounds.set_up(spec, inputs, ground, probe, Silent()) as bench:
        yield bench, ground


@pytest.mark.parametrize("strategy", ["tail", "lp-ft"])
def test_training_begins_at_the_answers_of_the_probe(strategy, root):
    for bench, ground in with_bench(root, strategy):
        split = ground.last
        network = begin(bench, split.train, 0)
        arrays = fit_head(bench, split.train)
        rows = bench.inputs.features.read("penultimate", bench.inputs.data.train.rows[split.val])
        expected = SCORERS["linear"](arrays, rows.astype(np.float64))
        found = bench.scores(network, split.val)
        allowed = 2e-2 if strategy == "tail" else 1e-4  # maps are kept in float16
        assert np.abs(found - expected).max() < allowed * np.ptp(expected)


def test_what_was_to_stay_and_has_changed_is_an_error(root, monkeypatch):
    def nudged(network: Any, *_: Any) -> Any:
        next(network.trunk.buffers()).add_(1)
        state = network.state()
        return Outcome(state, 0, 0, {"loss": 1.0, "accuracy": 0.0}, [], 0.0, finished=True)

    for bench, ground in with_bench(root, "tail"):
        monkeypatch.setattr(Site, "run", lambda _, network, *told: nudged(network, *told))
        with pytest.raises(FitError, match="was to stay frozen has changed"):
            train_one(bench, "tiny", ground.last, 0, bench.plan.settings[0])


def about_to_deploy(bench, ground):
    """Return a training of no steps, its calibration, and what it answers for the test part."""
    network = begin(bench, ground.last.train, 0)
    outcome = Outcome(network.state(), 0, 0, {"loss": 1.0, "accuracy": 0.0}, [], 0.0, finished=True)
    trained = Trained("tiny", ground.last, 0, bench.plan.settings[0], outcome, network, None, outcome.val, [], [], "")
    held = Held(ground.last.val, bench.scores(network, ground.last.val), "validation part")
    probe = fit_probe(bench.spec, bench.inputs, Silent())
    tuned = story.judge_tuned(bench, probe, Course([], [trained], [], held))
    n_train, n_test = len(bench.inputs.data.train), len(bench.inputs.data.test)
    return trained, tuned, bench.scores(network, n_train + np.arange(n_test))


def test_a_network_that_would_answer_otherwise_than_it_was_trained_to_is_not_deployed(root, tmp_path, monkeypatch):
    for bench, ground in with_bench(root, "lp-ft"):
        trained, tuned, answers = about_to_deploy(bench, ground)
        made = deploy(bench, ground.source, trained, answers, tuned, tmp_path)
        np.testing.assert_allclose(made.expected, made.bundle.scores({"penultimate": made.rows}))
        monkeypatch.setattr(
            "classify.finetune.deploy.whole_state",
            lambda parts: {name: value * 1.01 for name, value in whole_state(parts).items()},
        )
        (tmp_path / "other").mkdir()
        with pytest.raises(FitError, match="answers otherwise than the trained one"):
            deploy(bench, ground.source, trained, answers, tuned, tmp_path / "other")


def test_rounded_maps_allow_for_less_than_a_tenth_of_the_spread(root, tmp_path):
    for bench, ground in with_bench(root, "tail"):
        trained, tuned, answers = about_to_deploy(bench, ground)
        off = np.eye(*answers.shape) * np.ptp(answers)
        with pytest.raises(FitError, match="answers otherwise than the trained one"):
            deploy(bench, ground.source, trained, answers + 0.15 * off, tuned, tmp_path)


def test_what_is_said_to_have_stayed_is_looked_at_once_more(root):
    for bench, ground in with_bench(root, "tail"):
        network: Any = begin(bench, ground.last.train, 0)
        outcome = Outcome(network.state(), 0, 0, {"loss": 1.0, "accuracy": 0.0}, [], 0.0, finished=True)
        frozen = network.frozen_digest()
        setting = bench.plan.settings[0]
        trained = Trained("tiny", ground.last, 0, setting, outcome, network, None, outcome.val, [], [], frozen)
        course = Course([], [trained], [np.zeros((12, 3))], Held(ground.last.val, np.zeros((12, 3)), "out of fold"))
        assert told(bench, course, "accuracy")["frozen"]["after"] == frozen
        next(network.trunk.buffers()).add_(1)
        assert told(bench, course, "accuracy")["frozen"]["after"] != frozen


def test_a_mixture_is_worth_what_a_look_at_the_same_weights_says_where_classes_are_weighed(root):
    for bench, ground in with_bench(root, "lp-ft", wise=1.0):
        y, at = bench.inputs.data.train.y, ground.last.train
        uneven = replace(ground.last, train=np.concatenate([at[y[at] == 0][:2], at[y[at] > 0]]))
        weighed = replace(bench, plan=replace(bench.plan, class_weight="balanced"))
        found = train_one(weighed, "tiny", uneven, 0, bench.plan.settings[0])
        assert found.val == pytest.approx(found.outcome.val, rel=1e-4)
        plain = -np.log(softmax(bench.scores(found.network, uneven.val)))[np.arange(len(uneven.val)), y[uneven.val]]
        assert found.val["loss"] != pytest.approx(plain.mean(), rel=1e-3)


def test_the_pace_is_measured_once(root, monkeypatch):
    for bench, ground in with_bench(root, "tail"):
        step_s, look_s = measure_pace(bench, ground.last, 0)
        assert step_s >= 0
        assert look_s >= 0
        monkeypatch.setattr("classify.finetune.pace.train", None)
        assert measure_pace(bench, ground.last, 0) == (step_s, look_s)
        bench.forget()
        with pytest.raises(TypeError):
            measure_pace(bench, ground.last, 0)


def test_nothing_is_fitted_on_what_it_answers_for(root, monkeypatch):
    jobs, heads, folds = [], [], []
    monkeypatch.setattr(
        Site, "run", lambda self, net, job, *told, plain=Site.run: jobs.append(job) or plain(self, net, job, *told)
    )
    monkeypatch.setattr(
        "classify.finetune.begin.fit_head", lambda bench, at, plain=fit_head: heads.append(at) or plain(bench, at)
    )
    monkeypatch.setattr(
        story,
        "survey",
        lambda spec, inputs, plain=grounds.survey: folds.extend(inputs.task.folds) or plain(spec, inputs),
    )
    metrics = tune(root, "tail", out="watched", folds=2)
    n_train = metrics["n_train"]
    for number in (0, 1):
        mine = [job for job in jobs if job.name.startswith(f"without fold {number + 1}")]
        assert mine
        for job in mine:
            assert not set(job.train) & set(job.val)
            assert set(job.train) | set(job.val) == set(folds[number][0])
        assert set(heads[number]) == set(mine[0].train)
    last = next(job for job in jobs if job.name == "on all images")
    assert set(last.train) | set(last.val) == set(range(n_train))
    assert len(rows_of(root / "watched" / "out_of_fold.csv")) == len(folds[0][1]) + len(folds[1][1])


def test_the_test_part_has_no_say_in_what_is_trained(root, run, tmp_path):
    run("tail")
    ids = open_features("photos", root / "cache").ids
    names = {id_: CLASSES[(CLASSES.index(id_.split("/")[-2]) + id_.startswith("test/")) % 3] for id_ in ids}
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n" + "".join(f"{id_},{name}\n" for id_, name in names.items()))
    other = tune(root, "tail", out="relabelled", labels=labels)
    assert other["test"]["accuracy"]["value"] < 0.5
    plain, changed = (read_bundle(root / name / "bundle") for name in ("tail", "relabelled"))
    assert plain.recipe == changed.recipe
    np.testing.assert_array_equal(plain.arrays["coef"], changed.arrays["coef"])
    assert (plain.temperature, plain.conformal) == (changed.temperature, changed.conformal)


def test_a_stopped_run_goes_on_where_it_was_and_comes_to_the_same(root, run, monkeypatch):
    run("tail")
    taken: list[str] = []

    def counted(training: Training, batch: Any, plain=Training.take) -> None:
        taken.append(training.job.name)
        if len(taken) == 9:
            raise KeyboardInterrupt
        plain(training, batch)

    monkeypatch.setattr(Training, "take", counted)
    with pytest.raises(KeyboardInterrupt):
        tune(root, "tail", out="stopped", checkpoint_s=1e-6)
    assert not (root / "stopped").exists()
    tune(root, "tail", out="stopped", checkpoint_s=1e-6)
    assert len(taken) == 6 + 1 + 6  # six steps without the fold and six on all images, of which one was not taken
    plain, again = (read_bundle(root / name / "bundle") for name in ("tail", "stopped"))
    assert again.recipe.weights_sha256 == plain.recipe.weights_sha256
    np.testing.assert_array_equal(again.arrays["coef"], plain.arrays["coef"])


def test_seeds_are_averaged_mixtures_and_budgets_kept_to_and_the_rest_said(root):
    more = {"seeds": 2, "wise": "auto", "budget_s": 1e6, "folds": 0, "rates": (0.01, 0.03)}
    metrics = tune(root, "lp-ft", out="more", answer_accuracy=0.8, **more)
    found = metrics["finetune"]
    values = found["seeds"]["values"]
    assert len(values) == 2
    assert found["seeds"]["mean"] == pytest.approx(np.mean(values))
    assert found["seeds"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert [each["share_of_end"] in (0.0, 0.25, 0.5, 0.75, 1.0) for each in found["trainings"]] == [True, True]
    assert found["budget_s"] == 1e6
    assert not any("pace" in row["training"] for row in rows_of(root / "more" / "training.csv"))
    assert [row["rate"] for row in found["search"]][:2] == [0.01, 0.03]
    assert sum(row["chosen"] for row in found["search"]) == 1
    assert metrics["gain"]["out_of_fold"] is None
    assert metrics["calibration"]["calibrated_on"] == "validation part"
    assert len(rows_of(root / "more" / "out_of_fold.csv")) == found["trainings"][0]["n_val"]
    assert any("calibrated on the validation part" in note for note in metrics["notes"])


@pytest.mark.parametrize(
    ("strategy", "changes", "error", "said"),
    [
        ("tail", {"cut": "layer9"}, TapError, "no layer 'layer9'"),
        ("tail", {"cut": "penultimate"}, TapError, "penultimate"),
        ("lp-ft", {"freeze_until": "layer9"}, TapError, "no layer 'layer9'"),
        ("full", {"cut": "layer2"}, OptionError, "only a tail is cut off"),
        ("scratch", {"wise": 0.5}, OptionError, "no fitted start"),
        ("lp-ft", {"layers": ("layer7",)}, FitError, "no layer 'layer7'"),
        ("lp-ft", {"data": "gone"}, FitError, "not found"),
        ("full", {"budget_s": 0.01}, FitError, "budget"),
    ],
)
def test_what_cannot_be_is_refused_in_words_and_leaves_no_run(strategy, changes, error, said, root, monkeypatch):
    if "budget_s" not in changes:
        monkeypatch.setattr("classify.linear.search", None)  # nothing long has begun by then
    with pytest.raises(error) as caught:
        tune(root, strategy, out="refused", **changes)
    assert said in str(caught.value)
    assert caught.value.remedy
    assert not (root / "refused").exists()


def test_tensorboard_that_is_not_installed_is_said_before_any_work(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    monkeypatch.setattr("classify.linear.search", None)
    with pytest.raises(OptionError, match=r"offshelf\[tensorboard\]"):
        tune(root, "tail", out="refused", tensorboard=tmp_path)


def test_images_that_moved_are_asked_for_and_changed_ones_refused(root, tmp_path, monkeypatch):
    moved = tmp_path / "cache"
    photos = tmp_path / "photos"
    shutil.copytree(root / "photos", photos)
    extract_photos(photos, moved)
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(FitError, match="--data DATA"):
        tune(tmp_path, "lp-ft")
    lost = tmp_path / "elsewhere" / "train" / "ant" / "03.png"
    shutil.copy(lost.with_name("04.png"), lost)
    with pytest.raises(OffshelfError, match=r"train/ant/03\.png"):
        tune(tmp_path, "lp-ft", data=str(tmp_path / "elsewhere"))


def test_maps_alone_and_images_without_labels_are_refused(root, tmp_path):
    extract_photos(root / "photos", tmp_path / "cache", taps=("layer2:map",))
    with pytest.raises(FitError, match="is a map"):
        tune(tmp_path, "tail")
    shutil.rmtree(tmp_path / "cache")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (root / "photos" / "test" / "ant").iterdir():
        shutil.copy(path, flat)
    extract_photos(flat, tmp_path / "cache")
    with pytest.raises(FitError, match="no image has a label"):
        tune(tmp_path, "tail")


def test_the_command_prints_one_json_object(root, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["offshelf", "fit"])
    said = ["fit", "photos", "--cache", str(root / "cache"), "--strategy", "tail", "--steps", "2", "--batch-size", "8"]
    said += ["--rate", "0.01", "--seeds", "1", "--views", "2", "--cv", "3", "-j", "1", "--duplicates", "off", "--json"]
    result = CliRunner().invoke(pipeline.main, [*said, "--out", str(root / "command"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["finetune"]["strategy"] == "tail"
    refused = CliRunner().invoke(pipeline.main, [*said, "--out", str(root / "command"), "--cut", "layer9"])
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["error"]["type"] == "TapError"
