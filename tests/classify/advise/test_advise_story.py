import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pipeline
from classify.advise.rungs import LEFT, PREVENTED, RUNGS
from classify.advise.story import AdviseSpec, advise
from classify.advise.survey import NOT_USELESS, images_of, look
from classify.inputs import open_for_fit, read_inputs
from classify.spec import FitSpec
from classify.tuning import LINEAR, TuneSpec
from extract.errors import BackboneError, FitError, StoreError, TapError
from extract.progress import Silent
from extract.spec import BackboneSpec
from extract.store import open_features
from extract.store.folders import TRAININGS
from tests.classify.advise.little_around import little_around
from tests.classify.finetune.tiny_story import CLASSES, PER_CLASS, extract_photos, mislabelled

AMPLE_S = 1e7
N_TRAIN = PER_CLASS["train"] * len(CLASSES)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with little_around("classify.advise.story"):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/, the features of them in cache/, and labels.csv: every third image has a wrong one."""
    return mislabelled(tmp_path_factory.mktemp("advise"))


def asked(root: Path, budget_s: float = AMPLE_S, **changed: Any) -> FitSpec:
    tune = TuneSpec(budget_s=budget_s, steps=6, batch_size=16, rates=(0.03,), views=2)
    known = {"cv": 3, "jobs": 1, "duplicates": "off", "device": "cpu", "strategy": "auto", "tune": tune}
    places = {"cache": root / "cache", "labels": root / "labels.csv"}
    return FitSpec("photos", **known | places | changed)


@pytest.fixture(scope="module")
def advice(root: Path) -> dict[str, Any]:
    (root / "broken.pt").write_bytes(b"no weights")
    return advise(AdviseSpec(asked(root), (BackboneSpec("builtin", str(root / "broken.pt")),)), Silent())


def test_an_advice_has_all_that_was_measured_and_is_json(root, advice):
    json.dumps(advice, allow_nan=False)
    features = open_features("photos", root / "cache")
    assert (advice["features"], advice["features_key"]) == (features.name, features.recipe.key)
    assert advice["depth_profile"]["n"] == advice["case"]["n_train"] == N_TRAIN
    assert [row["rung"] for row in advice["ladder"]] == [LINEAR, *RUNGS]
    assert [row["reason"] for row in advice["backbones"]["rows"]][1:] == [
        "not a weights file that can be read without running it (UnpicklingError)"
    ]
    assert advice["diagnostics"]["knn"]["k"] == 20
    assert advice["recommendation"]["words"]
    assert advice["seconds"] > 0


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (BackboneSpec("nosuch"), "no model 'nosuch'"),
        (BackboneSpec("builtin", "gone.pt"), "no such weights file"),
        (BackboneSpec("resnet18", "IMAGENET1K_V9"), "no weights of resnet18 called 'IMAGENET1K_V9'"),
    ],
)
def test_a_network_that_nobody_knows_is_found_out_before_any_work(root, monkeypatch, backbone, said):
    monkeypatch.setattr("classify.advise.story.open_for_fit", None)
    with pytest.raises(BackboneError, match=said):
        advise(AdviseSpec(asked(root), (BackboneSpec("builtin"), backbone)), Silent())


def test_a_layer_that_no_network_is_cut_at_is_found_out_before_any_work(root, monkeypatch):
    monkeypatch.setattr("classify.advise.story.fit_probe", None)
    for tune in (TuneSpec(cut="nosuch"), TuneSpec(freeze_until="penultimate")):
        with pytest.raises(TapError) as caught:
            advise(AdviseSpec(asked(root, tune=tune)), Silent())
        assert caught.value.where == "builtin:cifar_resnet14"
        assert "layer1, layer2;" in caught.value.remedy


def test_what_stands_in_the_way_of_a_profile_stops_nothing_else(root, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise StoreError("cannot be written (No space left on device)")

    monkeypatch.setattr("classify.advise.survey.images_within", full)
    spec = asked(root)
    inputs = read_inputs(spec, open_for_fit(spec), Silent())
    seen = look(spec, inputs, Left(60.0), Silent())
    assert (seen.profile, seen.notes) == (
        None,
        ["no depth profile: cannot be written (No space left on device)"],
    )
    assert seen.source is not None


def test_nothing_but_the_probe_is_trained_and_nothing_is_left_of_what_was_measured(root, advice):
    rows = {row["rung"]: row for row in advice["ladder"]}
    assert [rung for rung, row in rows.items() if row["tried"]] == [LINEAR]
    assert rows["tail"]["why"] == LEFT
    assert rows["tail"]["projected_s"] > 0
    assert not list((open_features("photos", root / "cache").folder / TRAININGS).glob("*"))
    assert not (root / "runs").exists()


def test_the_command_to_run_next_is_the_fit_that_was_asked_about(root, advice):
    command = advice["recommendation"]["command"]
    known = pipeline.main.commands["fit"].make_context("fit", command[2:]).params
    assert (known["strategy"], known["features"], known["cv"], known["device"]) == ("auto", "photos", 3, "cpu")
    assert (known["labels"], known["tune_budget_s"]) == (root / "labels.csv", AMPLE_S)


def test_what_makes_the_data_doubtful_is_said(root, tmp_path):
    ids = sorted(open_features("photos", root / "cache").ids)
    names = ["rare" if at < 2 else id_.split("/")[-2] for at, id_ in enumerate(i for i in ids if "train/" in i)]
    rows = zip([i for i in ids if "train/" in i], names, strict=True)
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{id_},{name}\n" for id_, name in rows))
    notes = advise(AdviseSpec(asked(root, 1.0, labels=tmp_path / "labels.csv", data=str(tmp_path))), Silent())["notes"]
    assert any("folds instead of 3" in note for note in notes)


def test_starting_anew_is_barred_unless_pretraining_is_useless(advice):
    [scratch] = [row for row in advice["ladder"] if row["rung"] == "scratch"]
    useless = advice["case"]["similarity"] == "useless"
    assert (scratch["reason"] == NOT_USELESS) == (not useless)


class Left:
    """A clock that stands still."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def left_s(self) -> float:
        return self.seconds


def test_without_the_images_no_way_to_train_is_open_and_the_reason_is_said(root, tmp_path):
    shutil.copytree(root / "cache", tmp_path / "cache")
    spec = asked(root, cache=tmp_path / "cache", data=str(tmp_path / "nowhere"))
    inputs = read_inputs(spec, open_for_fit(spec), Silent())
    seen = look(spec, inputs, Left(60.0), Silent())
    assert (seen.source, seen.profile) == (None, None)
    assert list(seen.barred) == list(RUNGS)
    assert "not found" in seen.notes[0]
    advice = advise(AdviseSpec(spec), Silent())
    assert {row["why"] for row in advice["ladder"][1:]} == {PREVENTED}
    assert advice["recommendation"]["strategy"] == LINEAR
    with pytest.raises(FitError, match="not found"):
        advise(AdviseSpec(spec, (BackboneSpec("builtin"),)), Silent())


def test_what_torchvision_kept_is_not_downloaded_unless_it_is_named(root, tmp_path, monkeypatch):
    opened: list[tuple[Any, ...]] = []
    monkeypatch.setattr("classify.advise.survey.find_source", lambda *given: opened.append(given))
    part, source = SimpleNamespace(rows=np.arange(2)), f"torchvision:MNIST, below {tmp_path / 'data'}"
    features = SimpleNamespace(name="mnist", source=source)
    inputs: Any = SimpleNamespace(features=features, data=SimpleNamespace(train=part, test=part))
    with pytest.raises(FitError, match=r"not in .* any more") as caught:
        images_of(asked(root), inputs)
    assert "--data torchvision:MNIST" in caught.value.remedy
    assert not opened
    images_of(asked(root, data="torchvision:MNIST"), inputs)
    (tmp_path / "data").mkdir()
    images_of(asked(root), inputs)
    assert len(opened) == 2


def test_without_time_there_is_no_profile_and_a_note_says_how_far_it_would_have_gone(root):
    spec = asked(root, seed=5)  # other random weights: none of their maps are there
    inputs = read_inputs(spec, open_for_fit(spec), Silent())
    seen = look(spec, inputs, Left(0.0), Silent())
    assert seen.profile is None
    assert seen.source is not None
    assert seen.notes == ["no depth profile: 0.0 s are enough for 0 images only"]
    assert seen.barred == {"scratch": NOT_USELESS}


def test_features_of_one_stage_alone_have_no_profile_and_an_advice_all_the_same(root, tmp_path):
    extract_photos(root / "photos", tmp_path / "cache", taps=("layer1",))
    spec = asked(root, cache=tmp_path / "cache")
    inputs = read_inputs(spec, open_for_fit(spec), Silent())
    seen = look(spec, inputs, Left(600.0), Silent())
    assert seen.profile is None
    assert "the first stage" in seen.notes[0]
    assert "--layer penultimate" in seen.notes[0]


def test_the_command_prints_the_advice_and_as_json_the_same(root, monkeypatch, advice):
    options = ["advise", "photos", "--cache", str(root / "cache"), "--labels", str(root / "labels.csv")]
    options += ["--cv", "3", "--jobs", "1", "--duplicates", "off", "--device", "cpu", "--budget", "1s"]
    result = CliRunner().invoke(pipeline.main, [*options, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found) == set(advice)
    assert found["backbones"] is None
    assert found["case"]["n_train"] == N_TRAIN
    monkeypatch.setattr("classify.advise.story.advise", lambda *_: found | {"backbones": advice["backbones"]})
    shown = CliRunner().invoke(pipeline.main, options).stdout
    for words in (*found["recommendation"]["parts"].values(), advice["backbones"]["words"]):
        assert words in shown


def test_networks_are_named_once_or_several_times(monkeypatch):
    named: list[AdviseSpec] = []
    monkeypatch.setattr("classify.advise.story.advise", lambda spec, _: named.append(spec) or {})
    models = ["--models", "a,b=w.pt", "--models", "c", "--weights", "none", "--seed", "3", "--min-gain", "0.05"]
    result = CliRunner().invoke(pipeline.main, ["advise", "photos", *models, "--json"])
    assert result.exit_code == 0, result.output
    [spec] = named
    assert spec.models == (BackboneSpec("a", "none", 3), BackboneSpec("b", "w.pt", 3), BackboneSpec("c", "none", 3))
    assert (spec.fit.strategy, spec.fit.min_gain, spec.fit.budget_s) == ("auto", 0.05, 600.0)
