import io
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import TinyExamples, silent, tiny_job, tiny_network
from torch.nn import functional as F

from classify.finetune.checkpoint import MAGIC
from classify.finetune.job import Device, Outcome
from classify.finetune.log import Log
from classify.finetune.loop import train
from classify.finetune.schedule import rate_at
from extract.errors import TrainingError
from extract.progress import Silent

CPU = Device()
LEARNS = {"bn": "train", "rate": 0.5}
"""So that the loss falls from look to look."""
EVERYTHING = {
    "optimizer": "adamw",
    "mixup": 0.4,
    "ema": 0.75,
    "label_smoothing": 0.1,
    "class_weight": "balanced",
    "gradual": True,
    "layer_decay": 0.8,
    "bn": "train",
    "head_rate": 2.0,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # waits for the disk, which nothing here can tell


@pytest.fixture
def examples() -> TinyExamples:
    return TinyExamples()


def run(examples, folder, *, network=None, stop_at=None, device=CPU, log=None, bn="frozen", **changes) -> Outcome:
    network = network or tiny_network(bn=bn)
    job = tiny_job(examples, bn=bn, **changes)
    return train(network, examples, job, device, folder, log or silent(), stop_at=stop_at)


def assert_same(got: Outcome, expected: Outcome) -> None:
    """The same to the last bit, but for the time it took."""
    assert (got.step, got.best_step, got.val, got.finished) == (
        expected.step,
        expected.best_step,
        expected.val,
        expected.finished,
    )
    timeless = [[{**row, "seconds": 0} for row in outcome.history] for outcome in (got, expected)]
    assert timeless[0] == timeless[1]
    assert got.state.keys() == expected.state.keys()
    assert all(torch.equal(value, expected.state[name]) for name, value in got.state.items())


def test_the_loop_is_that_of_a_plain_one(examples, tmp_path):
    network, job = tiny_network(dropout=0.0, bn="train"), tiny_job(examples, **LEARNS)
    got = train(tiny_network(dropout=0.0, bn="train"), examples, job, CPU, tmp_path, silent())
    optimizer = torch.optim.SGD(network.groups(job.setting, job.plan), momentum=0.9, nesterov=True)
    batches = examples.drawn(job.train, batch_size=8, seed=0, start=0, augment=job.plan.augment)
    losses = []
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = job.setting.rate * rate_at(step, job.plan)
        batch = next(batches)
        loss = F.cross_entropy(network.train()(batch.x), batch.y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    y = torch.from_numpy(examples.y[job.val])
    with torch.no_grad():
        logits = network.eval()(examples.x[job.val])
    assert got.history[-1]["val_loss"] == pytest.approx(F.cross_entropy(logits, y).item(), abs=1e-6)
    assert got.history[-1]["val_accuracy"] == (logits.argmax(1) == y).double().mean().item()
    assert got.history[-1]["loss"] == pytest.approx(np.mean(losses[-4:]), abs=1e-6)
    assert got.best_step == 12, "of a loss that falls to the end"
    for name, value in network.live().items():
        torch.testing.assert_close(got.state[name], value, atol=1e-6, rtol=1e-5)


def test_it_learns_and_the_history_has_every_look_from_the_start_on(examples, tmp_path):
    done = run(examples, tmp_path, steps=10, **LEARNS)
    assert [row["step"] for row in done.history] == [0, 4, 8, 10]
    assert done.history[0]["val_loss"] == pytest.approx(np.log(3), abs=1e-6)
    assert done.history[0]["loss"] is None
    assert done.val["loss"] == min(row["val_loss"] for row in done.history) < np.log(3)
    assert (done.step, done.finished, done.diverged) == (10, True, False)
    assert examples.closed == 1


@pytest.mark.parametrize("changes", [{}, EVERYTHING, {"bn": "affine", "schedule": "drops", "drops": (6, 9)}])
def test_a_training_in_pieces_is_one_in_a_go_to_the_last_bit(examples, tmp_path, changes):
    expected = run(examples, tmp_path / "whole", **changes)
    for stop_at, step in ((1, 4), (4, 4), (7, 8), (None, 12)):
        got = run(examples, tmp_path / "pieces", stop_at=stop_at, **changes)
        assert (got.step, got.finished) == (step, step == 12)
    assert_same(got, expected)


@pytest.mark.parametrize("changes", [{}, EVERYTHING])
@pytest.mark.parametrize("dies_at", [1, 5, 11])
def test_a_training_that_dies_between_looks_goes_on_to_the_last_bit(examples, tmp_path, changes, dies_at):
    expected = run(examples, tmp_path / "whole", **changes)
    network = tiny_network(bn=changes.get("bn", "frozen"))
    network.register_forward_pre_hook(dying(after=dies_at))
    with pytest.raises(ZeroDivisionError):
        run(examples, tmp_path / "dead", network=network, checkpoint_s=1e-9, **changes)
    steps = Counted()
    assert_same(run(examples, tmp_path / "dead", log=Log(steps), **changes), expected)
    assert steps.advanced == [dies_at, *[1] * (12 - dies_at)], "no step was lost"


def dying(after: int):
    """Let the step after so many fail."""
    taken = 0

    def hook(network, _) -> None:
        nonlocal taken
        taken += network.training
        if taken > after:
            raise ZeroDivisionError

    return hook


class Counted(Silent):
    """What is said, in lists."""

    def __init__(self) -> None:
        self.started, self.advanced, self.notes, self.shown = [], [], [], []

    def start(self, what: str, total: int) -> None:
        self.started.append((what, total))

    def advance(self, steps: int, bad: int = 0) -> None:
        self.advanced.append(steps)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def show(self, text: str) -> None:
        self.shown.append(text)


def test_what_is_finished_is_read_and_not_computed(examples, tmp_path):
    expected = run(examples, tmp_path)
    (before,) = tmp_path.iterdir()
    written = before.stat().st_mtime_ns
    assert_same(run(examples, tmp_path, checkpoint_s=5, trial=True, name="again"), expected)
    assert before.stat().st_mtime_ns == written
    assert examples.closed == 1


def test_what_is_finished_keeps_no_more_than_what_came_of_it(examples, tmp_path):
    run(examples, tmp_path, stop_at=4)
    begun = torch.load(io.BytesIO(next(tmp_path.iterdir()).read_bytes()[len(MAGIC) + 64 :]), weights_only=True)
    assert begun["live"].keys() == {"network", "optimizer", "ema"}
    run(examples, tmp_path)
    done = torch.load(io.BytesIO(next(tmp_path.iterdir()).read_bytes()[len(MAGIC) + 64 :]), weights_only=True)
    assert done["live"] is None


def test_who_goes_on_knows_all_looks_and_the_time_it_took(examples, tmp_path):
    first = run(examples, tmp_path, stop_at=8)
    log = silent()
    done = run(examples, tmp_path, log=log)
    assert [row["step"] for row in log.rows] == [0, 4, 8, 12]
    assert [row["seconds"] for row in done.history[:3]] == [row["seconds"] for row in first.history]
    assert done.history[3]["seconds"] >= first.history[2]["seconds"]


def test_blocks_open_one_after_the_other_and_all_are_open_afterwards(examples, tmp_path):
    network, seen = tiny_network(), []
    network.register_forward_pre_hook(lambda module, _: seen.append(opened(network)) if module.training else None)
    run(examples, tmp_path, network=network, stop_at=4, gradual=True)
    assert len(network.blocks) == 2
    assert seen == [0, 0, 0, 1]
    assert opened(network) == 2
    run(examples, tmp_path, network=network, gradual=True)
    assert seen[4:] == [1, 1, *[2] * 6]


def opened(network) -> int:
    parameters = dict(network.tail.named_parameters())
    return sum(any(parameters[name].requires_grad for name in block) for block in network.blocks)


def test_a_folder_with_another_training_is_refused(examples, tmp_path):
    run(examples, tmp_path)
    with pytest.raises(TrainingError, match=r"holds another training.*Take another folder"):
        run(examples, tmp_path, seed=1)


@pytest.mark.parametrize("bn", ["frozen", "train"])
def test_the_network_is_left_as_it_came_and_so_are_random_numbers(examples, tmp_path, bn):
    network = tiny_network(bn=bn)
    before, digest, draws = network.state(), network.frozen_digest(), torch.get_rng_state()
    done = run(examples, tmp_path, network=network, **EVERYTHING | {"bn": bn})
    assert all(torch.equal(value, before[name]) for name, value in network.state().items())
    assert torch.equal(torch.get_rng_state(), draws)
    assert (network.frozen_digest(), network.training) == (digest, False)
    assert all(value.grad is None for value in network.parameters())
    network.load(done.state)
    assert network.frozen_digest() == digest


def test_the_best_weights_are_those_of_the_lowest_validation_loss(examples, tmp_path):
    done = run(examples, tmp_path, rate=1.5, clip_norm=0.0, steps=24, evaluate_every=1, patience=30)
    losses = [row["val_loss"] for row in done.history]
    assert done.best_step == int(np.argmin(losses)) < 24
    network = tiny_network()
    network.load(done.state)
    val = tiny_job(examples).val
    with torch.no_grad():
        loss = F.cross_entropy(network.eval()(examples.x[val]), torch.from_numpy(examples.y[val]))
    assert done.val["loss"] == pytest.approx(loss.item(), abs=1e-6)


def test_it_ends_after_looks_without_a_lower_loss(examples, tmp_path):
    done = run(examples, tmp_path, rate=1e-30, evaluate_every=2, patience=3)
    assert (done.step, done.best_step, done.finished) == (6, 0, True)
    assert run(examples, tmp_path, rate=1e-30, evaluate_every=2, patience=3).step == 6


def test_what_begins_fresh_goes_to_its_end_and_keeps_what_it_has_learned_however_its_loss_rose(examples, tmp_path):
    rises = {"rate": 1.5, "clip_norm": 0.0, "evaluate_every": 1}
    kept, fresh = (run(examples, tmp_path / str(each), patience=1, fresh=each, **rises) for each in (False, True))
    losses = [row["val_loss"] for row in fresh.history]
    assert losses[1] > losses[0]
    assert (kept.best_step, kept.step) == (0, 1)
    assert (fresh.best_step, fresh.step) == (1 + int(np.argmin(losses[1:])), len(losses) - 1)


def test_it_does_not_end_before_all_blocks_have_had_their_turn(examples, tmp_path):
    done = run(examples, tmp_path, rate=1e-30, evaluate_every=1, patience=3, gradual=True)
    assert (done.step, done.best_step, done.finished) == (8, 0, True)  # the last block opens in step 6


def test_averaged_weights_are_what_is_looked_at_and_kept(examples, tmp_path):
    plain, averaged = (run(examples, tmp_path / str(ema), ema=ema, **LEARNS) for ema in (0.0, 0.75))
    assert [row["loss"] for row in plain.history] == [row["loss"] for row in averaged.history]
    assert plain.val["loss"] < averaged.val["loss"], "the average lags behind a loss that falls"


@pytest.mark.parametrize("trial", [False, True])
def test_a_loss_that_is_no_number_ends_a_trial_and_is_an_error_elsewhere(examples, tmp_path, trial):
    wild = {"rate": 1e30, "clip_norm": 0.0, "trial": trial, "name": "fold 1"}
    if not trial:
        with pytest.raises(TrainingError, match=r"^fold 1, by step 4, rate 1e\+30: .*no number.*lower --rate$"):
            run(examples, tmp_path, **wild)
        return
    done = run(examples, tmp_path, **wild)
    assert (done.diverged, done.finished, done.best_step) == (True, True, 0)
    assert all(value.isfinite().all() for value in done.state.values())


def test_a_loss_that_is_no_number_is_found_long_before_a_look(examples, tmp_path):
    with pytest.raises(TrainingError, match="by step 10, "):
        run(examples, tmp_path, rate=1e30, clip_norm=0.0, steps=200, evaluate_every=100)


def test_a_validation_loss_that_is_no_number_is_one_too(examples, tmp_path):
    with pytest.raises(TrainingError, match="by step 1, "):
        run(examples, tmp_path, rate=1e30, clip_norm=0.0, evaluate_every=1)


CUDA, HOST = torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")


def tight(network, most: int, error: Exception):
    """Have a memory that takes so many images in training, and any number elsewhere."""
    whole = network.forward

    def forward(x):
        if network.training and len(x) > most:
            raise error
        return whole(x)

    network.forward = forward
    return network


@pytest.mark.parametrize("error", [CUDA, HOST])
@pytest.mark.parametrize("changes", [{}, {"mixup": 0.4, "class_weight": "balanced", "label_smoothing": 0.1}])
def test_a_memory_that_is_too_small_changes_no_more_than_roundings(examples, tmp_path, error, changes):
    expected = run(examples, tmp_path / "whole", network=tiny_network(dropout=0.0), **changes)
    said = Counted()
    network = tight(tiny_network(dropout=0.0), 3, error)
    got = run(examples, tmp_path / "parts", network=network, log=Log(said), **changes)
    for name, value in expected.state.items():
        torch.testing.assert_close(got.state[name], value, atol=1e-5, rtol=1e-4)
    assert got.val == pytest.approx(expected.val, abs=1e-5)
    assert said.notes == [
        "out of memory with 8 images at once: going on with 4; the gradients are the same",
        "out of memory with 4 images at once: going on with 2; the gradients are the same",
    ]


def test_where_batchnorm_learns_a_smaller_part_is_no_small_matter(examples, tmp_path):
    said = Counted()
    run(examples, tmp_path, network=tight(tiny_network(bn="train"), 4, CUDA), log=Log(said), bn="train")
    assert said.notes == ["out of memory with 8 images at once: going on with 4; BatchNorm learns from so many only"]


def test_a_training_that_goes_on_knows_how_much_the_memory_takes(examples, tmp_path):
    said = Counted()
    run(examples, tmp_path, network=tight(tiny_network(), 4, CUDA), stop_at=4)
    run(examples, tmp_path, network=tight(tiny_network(), 4, CUDA), log=Log(said))
    assert said.notes == []


def test_a_memory_that_does_not_take_one_image_is_an_error_in_a_trial_too(examples, tmp_path):
    with pytest.raises(TrainingError, match="memory does not suffice for one image"):
        run(examples, tmp_path, network=tight(tiny_network(), 0, CUDA), trial=True)


def test_other_errors_of_the_network_are_not_taken_for_a_lack_of_memory(examples, tmp_path):
    with pytest.raises(RuntimeError, match="shapes"):
        run(examples, tmp_path, network=tight(tiny_network(), 3, RuntimeError("shapes")))


def test_bf16_is_for_steps_and_not_for_looks(examples, tmp_path):
    seen = []
    network = tiny_network()
    network.tail.register_forward_hook(lambda module, _, rows: seen.append((network.training, rows.dtype)))
    half = run(examples, tmp_path / "half", network=network, device=replace(CPU, precision="bf16"))
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    full = run(examples, tmp_path / "full")
    assert half.history[-1]["loss"] == pytest.approx(full.history[-1]["loss"], abs=0.05)
    assert half.history[-1]["loss"] != full.history[-1]["loss"]


def test_who_watches_sees_steps_loss_and_accuracy(examples, tmp_path):
    said = Counted()
    done = run(examples, tmp_path, log=Log(said), name="fold 1, rate 0.2")
    assert said.started == [("fold 1, rate 0.2", 12)]
    assert said.advanced == [1] * 12
    last = done.history[-1]
    assert said.shown[0].startswith("validation 1.099, ")
    assert said.shown[-1] == (
        f"loss {last['loss']:.3f}, validation {last['val_loss']:.3f}, {last['val_accuracy']:.1%} right"
    )
