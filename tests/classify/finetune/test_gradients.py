from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import TinyExamples, silent, tiny_job, tiny_network
from torch.nn import functional as F

from classify.finetune.gradients import Gradients, Targets, class_weights, draw_seed, losses, mixed
from classify.finetune.job import Device
from extract.forward import normalise


@pytest.fixture
def job():
    return tiny_job(TinyExamples(), mixup=0.3, label_smoothing=0.1, class_weight="balanced")


@settings(max_examples=30)
@given(part=st.integers(1, 9), n=st.integers(1, 9), seed=st.integers(0, 5))
def test_whatever_the_parts_the_gradients_are_those_of_the_whole_batch(part, n, seed):
    job = tiny_job(TinyExamples(), mixup=0.3, label_smoothing=0.1, class_weight="balanced")
    batch = next(TinyExamples().plain(np.arange(n), batch_size=n))
    found = []
    for at_once in (part, n):
        network = tiny_network(dropout=0.0).train()
        gradients = Gradients(network, job, Device(), silent())
        gradients.part = at_once
        loss = gradients(batch.x, batch.y, seed)
        found.append([loss, *(value.grad for value in network.parameters() if value.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_no_gradient_is_left_of_the_batch_before(job):
    network = tiny_network(dropout=0.0).train()
    gradients = Gradients(network, job, Device(), silent())
    batch = next(TinyExamples().plain(np.arange(8), batch_size=8))
    once = [value.grad.clone() for value in network.head.parameters() if gradients(batch.x, batch.y, 1) is not None]
    gradients(batch.x, batch.y, 1)
    assert all(torch.equal(value.grad, one) for value, one in zip(network.head.parameters(), once, strict=True))


def test_mixing_pixels_is_mixing_what_they_are_normalised_to_up_to_half_a_grey_level():
    x = TinyExamples().x[:8]
    preset = tiny_network().preset
    y = torch.arange(8) % 3
    got, targets = mixed(x, y, 0.4, seed=3)
    chance = np.random.default_rng(3)
    share, others = chance.beta(0.4, 0.4), chance.permutation(8)
    assert got.dtype == torch.uint8
    assert (targets.share, targets.first.tolist(), targets.second.tolist()) == (share, y.tolist(), y[others].tolist())
    expected = share * normalise(x, preset) + (1 - share) * normalise(x[others], preset)
    half = 0.5001 / 255 / min(preset.std)
    torch.testing.assert_close(normalise(got, preset), expected, atol=half, rtol=0)


def test_maps_are_mixed_as_they_are():
    x = torch.randn(6, 4, 3, 3)
    got, targets = mixed(x, torch.arange(6), 1.0, seed=1)
    expected = targets.share * x + (1 - targets.share) * x[targets.second]
    torch.testing.assert_close(got, expected)


def test_without_mixing_the_batch_is_what_it_was():
    x, y = torch.randn(4, 2), torch.arange(4)
    got, targets = mixed(x, y, 0.0, seed=1)
    assert got is x
    assert (targets.first is y, targets.share) == (True, 1.0)


def test_shares_are_drawn_from_the_beta_distribution():
    x, y = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
    shares = [mixed(x, y, 0.2, draw_seed(0, step))[1].share for step in range(2000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)


def test_the_loss_is_torchs_and_a_class_counts_what_it_weighs():
    logits, y, other = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0]), torch.tensor([2, 2, 1, 0, 0])
    weights = torch.tensor([0.5, 1.0, 2.0])
    plain = losses(logits, Targets(y, y), torch.ones(3), smoothing=0.1)
    torch.testing.assert_close(plain.mean(), F.cross_entropy(logits, y, label_smoothing=0.1))
    weighed = losses(logits, Targets(y, y), weights)
    torch.testing.assert_close(weighed.sum() / weights[y].sum(), F.cross_entropy(logits, y, weights))
    mixture = losses(logits, Targets(y, other, 0.3), torch.ones(3))
    soft = 0.3 * F.one_hot(y, 3) + 0.7 * F.one_hot(other, 3)
    torch.testing.assert_close(mixture.mean(), F.cross_entropy(logits, soft))


def test_classes_are_balanced_over_the_images_that_train():
    job = tiny_job(TinyExamples(), class_weight="balanced")
    job = replace(job, y=np.array([0, 0, 0, 1, 2, 2]), train=np.array([0, 1, 3, 4]), val=np.array([2, 5]))
    weights = class_weights(job)
    assert weights.tolist() == pytest.approx([4 / 6, 4 / 3, 4 / 3])
    assert (weights[torch.from_numpy(job.y[job.train])].mean()).item() == pytest.approx(1)
    plain = replace(job, plan=replace(job.plan, class_weight=None))
    assert class_weights(plain).tolist() == [1, 1, 1]


def test_every_step_of_every_seed_draws_for_itself():
    seeds = {draw_seed(seed, step) for seed in range(20) for step in range(50)}
    assert len(seeds) == 1000
    assert draw_seed(3, 7) == draw_seed(3, 7)
