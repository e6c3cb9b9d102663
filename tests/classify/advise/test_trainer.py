from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from classify.advise import trainer as module
from classify.advise.rungs import Answers
from classify.advise.trainer import BudgetTrainer, check_settings, folds_needed
from classify.finetune import begin
from classify.finetune.plan import check_tuning
from classify.fit import fit
from classify.inputs import open_for_fit, read_inputs
from classify.linear import fit_probe
from classify.spec import FitSpec
from classify.tuning import STRATEGIES, TuneSpec
from extract.errors import OffshelfError, OptionError
from extract.progress import Silent
from tests.classify.finetune.tiny_story import QUICK, extract_photos, write_photos


def folds_of(*sizes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.arange(0), np.arange(size)) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "asked", "needed"),
    [
        ((40,) * 5, 1, 5),
        ((1000,) * 5, 1, 2),
        ((2000,) * 3, 1, 1),
        ((5000, 5000), 1, 1),
        ((40,) * 5, 3, 3),
        ((9,) * 3, 7, 3),
    ],
)
def test_folds_are_trained_without_until_enough_images_are_answered_for(sizes, asked, needed):
    assert folds_needed(folds_of(*sizes), asked) == needed


class Clock:
    """A clock that goes as far as it is told at each look."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


def fake(tune: TuneSpec, clock: Clock | None = None) -> BudgetTrainer:
    inputs: Any = SimpleNamespace(task=SimpleNamespace(folds=folds_of(9, 9, 9)))
    spec = FitSpec("photos", strategy="auto", tune=tune)
    return BudgetTrainer(spec, inputs, SimpleNamespace(), Silent(), clock or Clock())  # pyright: ignore[reportArgumentType]


def test_time_runs_out_and_never_below_none():
    trainer = fake(TuneSpec(budget_s=10.0), Clock(4.0))
    assert [trainer.left_s() for _ in range(4)] == [6.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize("clash", [{"recipe": "bit", "optimizer": "adamw"}, {"bn": "train", "batch_size": 1}])
def test_settings_that_no_way_to_train_can_follow_are_refused_before_any_work(clash):
    with pytest.raises(OptionError, match=r"Leave --optimizer out|Take --batch-size 2"):
        fit(FitSpec("nosuch", tune=TuneSpec(**clash)))


def test_what_one_way_alone_cannot_do_leaves_the_others():
    check_settings(TuneSpec(recipe="bit", freeze_until="layer1", cut="layer2"))  # not from scratch


def test_a_rung_gets_the_settings_that_mean_something_to_it():
    asked = TuneSpec(cut="layer2", freeze_until="layer1", views=2, wise=0.5, bn="affine", layer_decay=0.9, steps=70)
    trainer = fake(asked)
    for rung in STRATEGIES:
        tune = trainer._tune(rung)
        check_tuning(rung, tune)  # raises where one does not
        assert (tune.steps, tune.seeds, tune.budget_s) == (70, 1, None)
    assert trainer._tune("tail").cut == "layer2"
    assert trainer._tune("full").freeze_until == "layer1"
    assert fake(TuneSpec(seeds=2))._tune("full").seeds == 2
    assert trainer.command("linear") == ["offshelf", "fit", "photos", "--strategy", "linear"]
    assert "--seeds" not in trainer.command("full")
    assert "--min-gain" not in BudgetTrainer(
        replace(trainer.spec, min_gain=0.05), trainer.inputs, trainer.probe, Silent(), Clock()
    ).command("tail")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory):
    """Make a trainer on photos, as long as a step takes 10 ms and a look none, and no other time passes."""
    folder = tmp_path_factory.mktemp("trainer")
    extract_photos(write_photos(folder / "photos"), folder / "cache")
    known = {"cache": folder / "cache", "cv": 3, "jobs": 1, "duplicates": "off", "device": "cpu", "strategy": "auto"}

    def make(**changes: Any) -> BudgetTrainer:
        tune = TuneSpec(**QUICK | {"steps": 60, "batch_size": 4, "rates": (0.001, 0.003, 0.01)} | changes)
        spec = FitSpec("photos", tune=tune, **known)
        inputs = read_inputs(spec, open_for_fit(spec), Silent())
        return BudgetTrainer(spec, inputs, fit_probe(spec, inputs, Silent()), Silent(), Clock())

    return make


@pytest.fixture(autouse=True)
def steady(monkeypatch) -> None:
    monkeypatch.setattr(module, "measure_pace", lambda *_: (0.01, 0.0))


def test_a_cheap_measurement_is_one_setting_and_one_fold_in_a_tenth_of_the_budget(real, monkeypatch):
    trainer = real(budget_s=5.5)
    monkeypatch.setattr(module, "maps_seconds", lambda *_: 0.2)
    found = trainer.measure()
    assert isinstance(found, Answers)
    assert found.settings == {"rate": 0.003, "weight_decay": 0.0001, "steps": 55, "folds": 1}
    np.testing.assert_array_equal(found.at, np.sort(trainer.inputs.task.folds[0][1]))
    assert len(trainer.folders) == 1
    trainer.forget()
    assert not any(folder.exists() for folder in trainer.folders)


@pytest.mark.parametrize(
    ("budget_s", "maps_s", "said"),
    [(5.5, 0.6, "maps alone"), (4.0, 0.0, "fewest that make sense"), (1e6, 0.0, "no longer than a measurement")],
)
def test_why_there_is_no_cheap_measurement_is_said(real, monkeypatch, budget_s, maps_s, said):
    trainer = real(budget_s=budget_s)
    monkeypatch.setattr(module, "maps_seconds", lambda *_: maps_s)
    monkeypatch.setattr(module, "train_one", None)
    try:
        found = trainer.measure()
    except OffshelfError as error:  # the ladder takes it for the reason
        found = str(error)
    assert said in found


def test_an_offer_keeps_time_for_the_last_training_of_the_best_so_far(real, monkeypatch):
    trainer = real(budget_s=4.0, rates=(0.01,))
    monkeypatch.setattr(module, "maps_seconds", lambda *_: 0.0)
    offer = trainer.offer("tail", "linear", 1.0)
    assert (offer.fits, offer.tune.folds, offer.tune.steps) == (True, 3, 60)  # 3 folds and a last: 240 steps
    assert offer.seconds == pytest.approx(2.4)
    offer = trainer.offer("tail", "linear", 0.555)
    assert (offer.fits, offer.tune.folds, offer.tune.steps) == (True, 3, 55)
    assert trainer.last_s["tail"] == pytest.approx(0.55)
    trainer.last_s["tail"] = 2.395
    offer = trainer.offer("lp-ft", "tail", 1.0)
    assert (offer.fits, offer.tune.folds, offer.tune.steps) == (True, 3, 53)
    trainer.last_s["tail"] = 3.9
    offer = trainer.offer("lp-ft", "tail", 1.0)
    assert not offer.fits
    assert offer.seconds == pytest.approx(0.6 + 3.9)
    monkeypatch.setattr(module, "maps_seconds", lambda *_: 2.1)
    offer = trainer.offer("tail", "linear", 1.0)
    assert (offer.fits, offer.seconds, offer.what.partition(",")[0]) == (False, 2.1, "making its maps")


def test_a_rung_is_surveyed_once_and_a_head_is_fitted_once_for_all(real, monkeypatch):
    trainer, asked = real(rates=(0.01,), steps=6), []
    monkeypatch.setattr(module, "maps_seconds", lambda *_: 0.0)
    monkeypatch.setattr(module, "survey", lambda spec, *_, plain=module.survey: asked.append(spec) or plain(spec, *_))
    monkeypatch.setattr(begin, "fit_head", lambda bench, at, plain=begin.fit_head: asked.append(at) or plain(bench, at))
    for rung in ("tail", "lp-ft"):
        trainer.train(rung, trainer.offer(rung, "linear", 1.0), lambda *_: False)
    surveyed = [each for each in asked if isinstance(each, FitSpec)]
    assert [(spec.strategy, spec.tune.folds) for spec in surveyed] == [("tail", 3), ("lp-ft", 3)]
    assert len(asked) - len(surveyed) == 1
    trainer.forget()


def test_folds_are_left_out_once_there_is_no_hope(real, monkeypatch):
    trainer = real(rates=(0.01,), steps=6)
    monkeypatch.setattr(module, "maps_seconds", lambda *_: 0.0)
    offer, asked = trainer.offer("tail", "linear", 1.0), []
    found = trainer.train("tail", offer, lambda answers, share: bool(asked.append((len(answers.at), share))))
    assert asked == [(16, pytest.approx(1 / 3))]
    assert (len(found.at), found.settings["folds"], trainer.tunes["tail"].folds) == (16, 1, 1)
    trainer.forget()
