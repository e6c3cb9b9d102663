from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.finetune.job import Outcome
from classify.finetune.plan import Plan, Setting
from classify.finetune.search import brackets, search, search_steps
from extract.errors import TrainingError
from extract.progress import Silent


def plan_of(*rates, decays=(0.0,), steps=90, **fields):
    settings = tuple(Setting(rate, decay) for rate in rates for decay in decays)
    return Plan("auto", steps, 32, settings, **{"evaluate_every": 1, **fields})


@dataclass
class Trainings:
    """Stands in for trainings: the loss by rate (and step), or None where it diverges at once.

    As those do, they stop at a look, the first from the step on that was asked for.
    """

    losses: dict
    calls: list = field(default_factory=list)
    reached: dict = field(default_factory=dict)
    steps: int = 90
    patience: int = 10**9
    evaluate_every: int = 1

    def __call__(self, setting, stop_at):
        self.calls.append((setting.rate, stop_at))
        loss = self.losses[setting.rate]
        loss = loss(stop_at) if callable(loss) else loss
        look = -(-stop_at // self.evaluate_every) * self.evaluate_every
        step = min(look, self.steps, self.patience)
        self.reached[setting] = max(step, self.reached.get(setting, 0))
        val = {"loss": float("inf") if loss is None else loss, "accuracy": 0.5}
        history = [{"loss": -val["loss"]}]  # the more is learned of the training part, the worse is the validation
        ended = step == self.steps or step < stop_at or loss is None
        return Outcome({}, step, step, val, history, 1.0, ended, loss is None)


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, [(90, 1)]), (2, [(10, 2), (90, 1)]), (3, [(10, 3), (90, 1)]), (9, [(10, 9), (30, 3), (90, 1)]),
     (20, [(10, 20), (30, 7), (90, 3)])],
)  # fmt: skip
def test_a_third_goes_on(n, expected):
    assert brackets(plan_of(*range(1, n + 1))) == expected


def test_nothing_is_compared_while_the_rate_still_rises():
    assert brackets(plan_of(1, 2, warmup_steps=10)) == [(30, 2), (90, 1)]
    assert brackets(plan_of(1, 2, warmup_steps=9)) == [(10, 2), (90, 1)]
    assert brackets(plan_of(1, 2, 3, 4, steps=1)) == [(1, 4)]


def test_settings_are_compared_at_looks():
    assert brackets(plan_of(*range(1, 10), evaluate_every=9)) == [(18, 9), (36, 3), (90, 1)]
    assert brackets(plan_of(1, 2, evaluate_every=50)) == [(50, 2), (90, 1)]
    assert brackets(plan_of(1, 2, evaluate_every=90)) == [(90, 2)]


def test_the_best_rate_goes_on_to_the_end():
    trainings = Trainings({1: 0.5, 2: 0.3, 3: 0.4})
    found = search(trainings, plan_of(1, 2, 3), Silent())
    assert trainings.calls == [(1, 10), (2, 10), (3, 10), (2, 90)]
    assert found.best == Setting(2, 0.0)
    assert found.outcome.step == 90
    assert found.notes == []
    assert [(row["rate"], row["steps"], row["loss"], row["chosen"]) for row in found.trials] == [
        (1, 10, 0.5, False), (2, 90, 0.3, True), (3, 10, 0.4, False),
    ]  # fmt: skip


def test_fresh_weights_are_compared_early_by_what_they_learned_and_in_the_end_by_validation():
    trainings = Trainings({rate: rate / 100 for rate in range(1, 12)} | {33: 0.5})
    found = search(trainings, plan_of(*range(1, 12), fresh=True), Silent())
    assert [rate for rate, stop in trainings.calls if stop == 90] == [33, 11]
    assert found.best.rate == 11


def test_one_setting_is_simply_trained():
    trainings = Trainings({1: 0.5})
    assert search(trainings, plan_of(1), Silent()).notes == []
    assert trainings.calls == [(1, 90)]


def test_one_rate_with_several_decays_has_no_edge():
    trainings = Trainings({1: 0.5})
    assert search(trainings, plan_of(1, decays=(0.0, 0.1)), Silent()).notes == []
    assert trainings.calls == [(1, 10), (1, 10), (1, 90)]


def test_what_is_slow_at_first_may_win_where_several_go_on():
    losses = {rate: 1.0 + rate for rate in range(1, 11)} | {2: 0.3, 3: lambda step: 0.4 if step < 90 else 0.1}
    found = search(Trainings(losses), plan_of(*range(1, 11)), Silent())
    assert found.best.rate == 3


@pytest.mark.parametrize(
    ("losses", "tried"), [({1: 0.1, 2: 0.2, 3: 0.3, 1 / 3: 0.4}, 1 / 3), ({1: 0.3, 2: 0.2, 3: 0.1, 9: 0.4}, 9)]
)
def test_a_best_rate_at_the_edge_widens_the_grid_once(losses, tried):
    watch, trainings = Notes(), Trainings(losses)
    found = search(trainings, plan_of(1, 2, 3), watch)
    assert found.best.rate != tried
    assert (tried, 10) in trainings.calls
    assert watch.notes == found.notes
    assert len(found.notes) == 1
    assert "edge of the grid" in found.notes[0]


@pytest.mark.parametrize(("over_rate", "decay"), [(False, 0.1), (True, 0.1 / 3)])
def test_a_decay_over_the_rate_follows_beyond_the_edge(over_rate, decay):
    trainings = Trainings({1: 0.3, 2: 0.2, 3: 0.1, 9: 0.05})
    found = search(trainings, plan_of(1, 2, 3, decays=(0.1,), decay_over_rate=over_rate), Silent())
    assert (found.best.rate, found.best.weight_decay) == (9, pytest.approx(decay, rel=1e-5))


def test_what_lies_beyond_the_edge_can_win_and_is_an_edge_again():
    trainings = Trainings({1: 0.3, 2: 0.2, 3: 0.1, 9: 0.05})
    found = search(trainings, plan_of(1, 2, 3), Silent())
    assert found.best.rate == 9
    assert trainings.calls[-1] == (9, 90)
    assert "the highest that was tried" in found.notes[1]


def test_equals_are_settled_by_the_lower_rate_and_decay():
    found = search(Trainings(dict.fromkeys((1, 2, 3, 1 / 3), 0.5)), plan_of(3, 2, 1, decays=(1.0, 0.0)), Silent())
    assert found.best == Setting(1 / 3, 0.0)


def test_what_diverges_drops_out():
    found = search(Trainings({1: 0.5, 2: 0.3, 3: None}), plan_of(1, 2, 3), Silent())
    assert found.best.rate == 2
    last = found.trials[-1]
    assert (last["diverged"], last["loss"], last["accuracy"]) == (True, None, None)


def test_where_the_best_diverges_late_the_next_best_takes_its_place():
    trainings = Trainings({1: 0.5, 2: lambda step: 0.3 if step < 90 else None, 3: 0.4, 9: 0.6})
    found = search(trainings, plan_of(1, 2, 3), Silent())
    assert found.best.rate == 3
    assert trainings.calls[-2:] == [(2, 90), (3, 90)]


def test_where_all_diverge_there_is_no_answer():
    with pytest.raises(TrainingError, match=r"at every rate.*lower --rate: 0\.1"):
        search(Trainings({1: None, 2: None}), plan_of(1, 2), Silent())


def test_what_has_ended_is_not_trained_again():
    trainings = Trainings({1: 0.5, 2: 0.3, 3: 0.4}, patience=7)
    assert search(trainings, plan_of(1, 2, 3), Silent()).outcome.step == 7
    assert len(trainings.calls) == 3


@given(st.integers(1, 25), st.integers(1, 500), st.integers(0, 60), st.integers(1, 60), st.data())
def test_a_search_takes_the_steps_that_were_counted(n_rates, steps, warmup, every, data):
    plan = plan_of(*range(1, n_rates + 1), steps=steps, warmup_steps=min(warmup, steps - 1), evaluate_every=every)
    order = data.draw(st.permutations(range(1, n_rates + 1)))
    losses = {rate: order.index(rate) for rate in order} | {1 / 3: 99, 3 * n_rates: 99}
    trainings = Trainings(losses, steps=steps, evaluate_every=every)
    search(trainings, plan, Silent())
    taken = sum(trainings.reached.values())
    at_edge = n_rates > 1 and order[0] in (1, n_rates) and len(brackets(plan)) > 1
    spared = brackets(plan)[0][0] if n_rates > 1 and len(brackets(plan)) > 1 and not at_edge else 0
    assert taken == search_steps(plan) - spared
