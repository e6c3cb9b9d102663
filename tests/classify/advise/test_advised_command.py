from dataclasses import fields, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import pipeline
from classify import fit
from classify.advise.command import OPTIONS, command_of
from classify.spec import FitSpec
from classify.tuning import TuneSpec

ASKED = FitSpec(
    "photos/0123",
    cache=Path("other cache"),
    layers=("layer3", "penultimate"),
    class_weight="balanced",
    strategy="lp-ft",
    metric="macro_f1",
    cv=4,
    group="none",
    duplicates="off",
    labels=Path("labels.csv"),
    hold_out=0.30000001,
    alpha=0.05,
    answer_accuracy=0.9,
    data="photos",
    root=Path("below"),
    seed=7,
    device="cpu",
    tune=TuneSpec(
        freeze_until="layer1",
        bn="affine",
        optimizer="adamw",
        rates=(0.001, 0.0003),
        weight_decay=0.0005,
        steps=120,
        batch_size=16,
        augment="crop",
        mixup=0.1,
        label_smoothing=0.05,
        ema=False,
        layer_decay=0.9,
        gradual=True,
        wise="auto",
        folds=3,
        seeds=2,
        budget_s=12345678.0,
        checkpoint_s=30.0,
        precision="fp32",
        compile="inductor",
        tensorboard=Path("events"),
    ),
)


def parsed(command: list[str], monkeypatch: pytest.MonkeyPatch) -> FitSpec:
    found: list[FitSpec] = []
    monkeypatch.setattr(fit, "fit", lambda spec, progress: found.append(spec) or {})
    result = CliRunner().invoke(pipeline.main, [*command[1:], "--json"])
    assert result.exit_code == 0, result.output
    return found[0]


@pytest.mark.parametrize(
    "spec",
    [
        ASKED,
        FitSpec("photos", strategy="tail", tune=TuneSpec(cut="layer2", views=2, recipe="bit", ema=True)),
        FitSpec("photos", strategy="auto", min_gain=0.02),
        FitSpec("photos", strategy="scratch"),
        FitSpec("photos", strategy="linear"),
    ],
    ids=lambda spec: spec.strategy,
)
def test_the_command_that_is_said_asks_for_just_that_fit(spec, monkeypatch):
    found = parsed(command_of(spec), monkeypatch)
    assert replace(found, command=(), jobs=spec.jobs) == spec


def test_no_more_is_said_than_is_asked_for():
    assert command_of(FitSpec("photos", strategy="linear")) == ["offshelf", "fit", "photos", "--strategy", "linear"]


def test_every_field_that_a_strategy_may_differ_in_has_its_option():
    elsewhere = {"features", "strategy", "tune", "command", "out", "jobs", "engine"}
    not_trained = {"head", "params", "protocol", "few_shot", "draws", "multi_label"}
    assert set(OPTIONS) | elsewhere | not_trained == {field.name for field in fields(FitSpec)}
