from dataclasses import replace

import numpy as np
import pytest
from tiny_task import tiny_task

from classify.advise.ladder import Ladder, chance, least_shown
from classify.advise.prior import FAR_SD, TRANSFER_SD, Prediction
from classify.advise.rungs import Answers, Foreseen, Hopeful, Offer
from classify.evaluate import draw_resamples
from classify.statistics import Comparison, paired
from classify.tuning import TuneSpec
from extract.errors import Interrupted, TrainingError

N = 400
Y = np.arange(N) % 2
RUNGS = ["linear", "taps", "tail", "lp-ft", "full", "scratch"]
NO_TAPS = {"taps": "no other layer is known"}


def wrong_in(n: int, first: int = 0) -> np.ndarray:
    """Answers for all images, `n` of them wrong from the `first` on."""
    named = Y.copy()
    named[first : first + n] = 1 - named[first : first + n]
    return named


class FakeTrainer:
    """Trainings that take as long as they are said to, and name what they are told to."""

    def __init__(self, named: dict[str, np.ndarray], seconds: dict[str, float] | None = None, budget_s: float = 600.0):
        self.named, self.seconds, self.now, self.budget_s = named, seconds or {}, 0.0, budget_s
        self.asked: list[tuple[str, str, float]] = []
        self.trained: list[str] = []
        self.measurement: Answers | str = "no time for it"
        self.folds = 99  # all that there are

    def left_s(self) -> float:
        return self.budget_s - self.now

    def command(self, rung: str, tune: TuneSpec | None = None) -> list[str]:
        return ["offshelf", "fit", "tiny", "--strategy", rung, *(["--steps", str(tune.steps)] if tune else [])]

    def measure(self) -> Answers | str:
        return self.measurement

    def offer(self, rung: str, best: str, share: float) -> Offer:
        self.asked.append((rung, best, share))
        seconds = self.seconds.get(rung, 10.0)
        return Offer(seconds, seconds <= self.left_s(), TuneSpec(steps=7, folds=self.folds))

    def train(self, rung: str, offer: Offer, hopeful: Hopeful) -> Answers:
        self.trained.append(rung)
        self.now += offer.seconds
        found = self.named[rung]
        if isinstance(found, Exception):
            raise found
        for n in range(100, N + 1, 100):
            answers = Answers(np.arange(n), found[:n], {"steps": 7}, offer.seconds)
            if n < N and not hopeful(answers, n / N):
                break
        return answers


def ladder_of(n_wrong: int = 100, barred: dict[str, str] | None = None, min_gain: float = 0.01) -> Ladder:
    probe = Answers(np.arange(N), wrong_in(n_wrong), {"layers": ["layer1", "layer2"]}, 3.0)
    return Ladder(tiny_task(Y, {"tap": np.zeros((N, 1))}), probe, min_gain, NO_TAPS | (barred or {}))


def climbed(trainer: FakeTrainer, ladder: Ladder, **known) -> dict[str, dict]:
    ladder.climb(trainer, **known)
    assert [row["rung"] for row in ladder.rows] == RUNGS
    keys = ladder.rows[0].keys()
    for row in ladder.rows:
        assert row.keys() == keys
        assert row["reason"]
        assert (row["why"] is None) == row["tried"]
        assert not row["accepted"] or row["tried"]
    return {row["rung"]: row for row in ladder.rows}


def test_what_surely_gains_is_taken_and_what_may_gain_nothing_is_not():
    named = {"tail": wrong_in(60), "lp-ft": wrong_in(57), "full": wrong_in(30, 100), "scratch": wrong_in(20)}
    trainer, ladder = FakeTrainer(named), ladder_of(barred={"scratch": "the weights are worth having"})
    rows = climbed(trainer, ladder)
    assert [rung for rung, row in rows.items() if row["accepted"]] == ["linear", "tail", "full"]
    assert ladder.best == "full"
    assert trainer.trained == ["tail", "lp-ft", "full"]
    assert trainer.asked == [("tail", "linear", 1 / 3), ("lp-ft", "tail", 1 / 2), ("full", "tail", 1.0)]
    assert rows["linear"]["value"]["value"] == 0.75
    assert "layer1 + layer2" in rows["linear"]["reason"]
    assert (rows["tail"]["gain"]["value"], rows["tail"]["over"]) == (pytest.approx(0.1), "linear")
    assert (rows["full"]["gain"]["value"], rows["full"]["over"]) == (pytest.approx(0.075), "tail")
    assert rows["full"]["gain"]["low"] > 0
    assert rows["lp-ft"]["gain"]["low"] <= 0 < rows["lp-ft"]["gain"]["value"]
    assert "perhaps none: +" in rows["lp-ft"]["reason"]
    assert rows["tail"]["command"][-2:] == ["--steps", "7"]
    assert (rows["scratch"]["why"], rows["scratch"]["predicted"]) == ("prevented", None)


def test_nothing_is_trained_where_the_probe_leaves_no_room_for_the_gain_that_is_asked_for():
    trainer = FakeTrainer({})
    rows = climbed(trainer, ladder_of(n_wrong=3))
    assert {rows[rung]["why"] for rung in RUNGS[2:]} == {"unlikely"}
    assert all(rows[rung]["predicted"]["p"] < 0.2 for rung in RUNGS[2:])
    assert trainer.asked == trainer.trained == []
    trainer = FakeTrainer({rung: wrong_in(100) for rung in RUNGS})
    climbed(trainer, ladder_of(min_gain=0.3))
    assert trainer.trained == []


def test_what_takes_longer_than_is_left_is_not_begun_and_what_it_takes_is_said():
    named = {rung: wrong_in(90) for rung in RUNGS}
    trainer = FakeTrainer(named, {"tail": 50.0, "lp-ft": 2000.0, "full": 551.0, "scratch": 549.0})
    rows = climbed(trainer, ladder_of())
    assert trainer.trained == ["tail", "scratch"]
    assert (rows["lp-ft"]["why"], rows["lp-ft"]["projected_s"], rows["lp-ft"]["seconds"]) == ("time", 2000.0, None)
    assert "about 2000 s; 550 s are left" in rows["lp-ft"]["reason"]
    assert rows["full"]["why"] == "time"
    assert rows["full"]["predicted"]["p"] > 0.2


def test_a_poor_cheap_measurement_makes_the_rungs_unlikely_and_a_real_one_takes_its_place():
    trainer, ladder = FakeTrainer({}), ladder_of(n_wrong=12)
    trainer.measurement = Answers(np.arange(N), wrong_in(92), {"steps": 3}, 5.0)
    rows = climbed(trainer, ladder)
    assert rows["tail"]["measurement"]["gain"]["value"] == pytest.approx(-0.2)
    assert {rows[rung]["why"] for rung in RUNGS[2:]} == {"unlikely"}
    trainer = FakeTrainer({rung: wrong_in(60) for rung in RUNGS})
    trainer.measurement = Answers(np.arange(100), wrong_in(70)[:100], {}, 5.0)
    ladder = ladder_of()
    climbed(trainer, ladder)
    assert "cheap" not in ladder.measured
    assert ladder.measured["tail"].gain == pytest.approx(0.1)


def test_where_ways_may_differ_more_a_poor_measurement_says_less_of_the_others():
    found = []
    for transfer_sd in (TRANSFER_SD, FAR_SD):
        near = ladder_of(n_wrong=60)
        ladder = Ladder(near.task, near.answers["linear"], 0.01, NO_TAPS, transfer_sd)
        trainer = FakeTrainer({})
        trainer.measurement = Answers(np.arange(N), wrong_in(155), {}, 5.0)
        found.append([row["why"] for row in climbed(trainer, ladder, train=False).values()][2:])
    assert found == [["unlikely"] * 4, ["unlikely", *["left to fit"] * 3]]  # of the tail itself it says the same


def test_why_there_is_no_cheap_measurement_is_said():
    rows = climbed(FakeTrainer({rung: wrong_in(60) for rung in RUNGS}), ladder_of())
    assert rows["tail"]["measurement"] == {"reason": "no time for it"}
    assert rows["lp-ft"]["measurement"] is None


def test_a_training_that_goes_badly_ends_before_all_folds_are_trained():
    named = {rung: np.r_[wrong_in(100)[:100], Y[100:]] for rung in RUNGS}  # as bad as the probe in the first fold
    rows = climbed(FakeTrainer(named), ladder_of())
    assert rows["tail"]["n"] == 100
    assert not rows["tail"]["accepted"]
    assert rows["tail"]["gain"]["value"] == 0


def test_ways_are_compared_on_the_images_that_both_answered_for():
    ladder = ladder_of()
    some = Answers(np.arange(50, 150), Y[50:150])
    assert ladder.compare(some, ladder.answers["linear"]).mean == pytest.approx(0.5)
    other = Answers(np.arange(0, 60), wrong_in(55)[:60])
    assert ladder.compare(some, other).mean == pytest.approx(0.5)  # of 10 images 5


def test_a_way_that_fails_leaves_the_others_and_one_that_is_stopped_stops_all():
    named = {rung: wrong_in(60) for rung in RUNGS} | {"lp-ft": TrainingError("the loss is no number", remedy="Stop")}
    rows = climbed(FakeTrainer(named), ladder_of())
    assert (rows["lp-ft"]["why"], rows["full"]["tried"]) == ("failed", True)
    assert "the loss is no number" in rows["lp-ft"]["reason"]
    with pytest.raises(Interrupted):
        ladder_of().climb(FakeTrainer(named | {"tail": Interrupted("stopped")}))


def test_what_fails_in_the_end_leaves_the_best_before_it_and_says_why():
    named = {"tail": wrong_in(60), "lp-ft": wrong_in(57), "full": wrong_in(30, 100), "scratch": wrong_in(100)}
    ladder = ladder_of()
    rows = climbed(FakeTrainer(named), ladder)
    before = dict(rows["full"])
    said = ladder.give_up(TrainingError("the loss is no number", where="on all images", remedy="Stop"))
    assert said == (
        "full surely gains over tail, but its last training failed, and the run is that of tail: on all images: the "
        "loss is no number. Stop"
    )
    assert ladder.best == "tail"
    reason = f"{before['reason']}; its last training failed: on all images: the loss is no number. Stop"
    assert rows["full"] == before | {"why": "failed", "reason": reason}
    assert ladder.give_up(TrainingError("so")).endswith("the run is that of linear: so")
    assert ladder.best == "linear"


def test_without_training_it_is_said_what_fit_would_try():
    trainer = FakeTrainer({}, {"full": 2000.0})
    rows = climbed(trainer, ladder_of(), train=False)
    assert trainer.trained == []
    assert [row["why"] for row in rows.values()] == [
        None,
        "prevented",
        "left to fit",
        "left to fit",
        "time",
        "left to fit",
    ]


def test_one_more_layer_is_tried_first_by_what_its_profile_foresees_and_then_is_what_trainings_have_to_beat():
    named = {"taps": wrong_in(40), "tail": wrong_in(38), "lp-ft": wrong_in(10), "full": wrong_in(10)}
    trainer, ladder = FakeTrainer(named), foreseen_ladder(0.1, 0.03)
    rows = climbed(trainer, ladder)
    assert [rung for rung, row in rows.items() if row["accepted"]] == ["linear", "taps", "lp-ft"]
    assert rows["taps"]["predicted"]["gain"] == pytest.approx(0.1, abs=0.01)
    assert (rows["taps"]["gain"]["value"], rows["taps"]["over"]) == (pytest.approx(0.15), "linear")
    assert (rows["lp-ft"]["gain"]["value"], rows["lp-ft"]["over"]) == (pytest.approx(0.075), "taps")
    assert (ladder.base, ladder.error) == ("taps", pytest.approx(0.1))
    assert ladder.measured["tail"].gain == pytest.approx(0.005)  # beside one more layer, not beside the first probe


def test_one_more_layer_that_is_not_foreseen_to_gain_or_does_not_leaves_the_probe_where_it_was():
    unlikely = FakeTrainer({rung: wrong_in(100) for rung in RUNGS})
    rows = climbed(unlikely, foreseen_ladder(-0.05, 0.03))
    assert (rows["taps"]["why"], "taps" in unlikely.trained) == ("unlikely", False)
    trainer, ladder = FakeTrainer({rung: wrong_in(99) for rung in RUNGS}), foreseen_ladder(0.1, 0.03)
    rows = climbed(trainer, ladder)
    assert (rows["taps"]["tried"], rows["taps"]["accepted"]) == (True, False)
    assert (ladder.best, ladder.base, ladder.error) == ("linear", "linear", pytest.approx(0.25))


def foreseen_ladder(gain: float, sd: float) -> Ladder:
    """A ladder whose probe has 100 of 400 wrong, and may have one more layer."""
    probe = Answers(np.arange(N), wrong_in(100), {"layers": ["layer2"]}, 3.0)
    foreseen = Foreseen("layer1:grid:4", Prediction(gain, sd, 0.25))
    task, barred = tiny_task(Y, {"tap": np.zeros((N, 1))}), {"scratch": "the weights are worth having"}
    return Ladder(task, probe, 0.01, barred, foreseen=foreseen)


def test_the_metric_of_the_search_and_whole_groups_are_compared():
    y, groups = np.r_[np.zeros(360, int), np.ones(40, int)], np.arange(N) // 4
    task = tiny_task(y, {"tap": np.zeros((N, 1))}, groups=groups, metric="balanced_accuracy")
    probe = Answers(np.arange(N), np.zeros(N, int), {"layers": ["tap"]})
    ladder = Ladder(task, probe, 0.01, {})
    assert ladder.error == pytest.approx(0.5)
    over = ladder.compare(Answers(np.arange(N), y), probe)
    assert over.mean == pytest.approx(0.5)


@pytest.mark.parametrize(("mean", "share"), [(0.02, 0.2), (0.0, 0.2), (-0.01, 0.5), (0.05, 0.8)])
def test_the_chance_of_a_sure_gain_agrees_with_simulation(mean, share):
    error, rng = 0.02, np.random.default_rng(0)
    # Nothing known before: the truth is spread about what was seen; the rest is drawn about the truth.
    truth = rng.normal(mean, error, 400_000)
    rest = rng.normal(truth, error * np.sqrt(share / (1 - share)))
    end = share * mean + (1 - share) * rest
    found = chance(Comparison(mean, mean - 1.959964 * error, mean + 1.959964 * error, 0.5), share)
    assert found == pytest.approx((end > 1.959964 * error * np.sqrt(share)).mean(), abs=5e-3)


def test_a_gain_without_spread_is_sure_or_none():
    assert chance(Comparison(0.1, 0.1, 0.1, 0.0), 0.2) == 1
    assert chance(Comparison(0.0, 0.0, 0.0, 1.0), 0.2) == 0
    assert chance(Comparison(0.05, 0.01, 0.09, 0.0), 1.0) == 1


@pytest.mark.parametrize("n", [20, 100, 400])
def test_the_least_gain_that_is_shown_is_where_an_interval_of_mended_images_begins(n):
    """The bootstrap against the formula; it is a little kinder to very few images than the normal distribution."""
    wrong, resamples = np.zeros(n, dtype=int), draw_resamples(n, None, 0)
    mended = np.arange(n)[:, None] > np.arange(n)
    shown = [k for k in range(1, 12) if paired(wrong + 1, mended[k].astype(int), wrong, resamples, "accuracy").low > 0]
    assert shown[0] / n == pytest.approx(least_shown(n, n), abs=1.5 / n)


def test_what_cannot_be_shown_is_not_tried():
    trainer, ladder = FakeTrainer({}), ladder_of(n_wrong=12)
    trainer.folds = 1
    rows = climbed(trainer, ladder)
    assert trainer.trained == []
    held = len(ladder.task.folds[0][1])
    assert rows["tail"]["why"] == "unlikely"
    assert rows["tail"]["reason"].startswith(f"{held} images held out would hardly show that it gains")
    assert least_shown(1000, 1) == 1


def test_one_group_shows_nothing():
    trainer, ladder = FakeTrainer({}), ladder_of()
    ladder.task = replace(ladder.task, groups=np.zeros(N, dtype=int))
    assert "all of one group" in climbed(trainer, ladder)["full"]["reason"]
    assert trainer.trained == []
