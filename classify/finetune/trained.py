"""One training from its beginning to the weights that count: its setting searched or given, start and end mixed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from classify.finetune.averaging import interpolate, recalibrate
from classify.finetune.begin import begin
from classify.finetune.bench import Bench, Split, lent
from classify.finetune.gradients import Targets, class_weights, losses
from classify.finetune.job import Job, Outcome
from classify.finetune.network import MOVING, Network
from classify.finetune.plan import Setting
from classify.tuning import AUTO
from extract.backbones.weights import State
from extract.errors import FitError

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the end, that `--wise auto` tries: as WiSE-FT does (Wortsman et al. 2022)."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of a training: the network with the weights that count, and how they were found.

    `share` is that of the end in a mixture with the start, None where nothing was mixed. `val` are loss and accuracy
    of the validation part; `trials` what the search tried, where this training had to find its setting; `frozen` is
    the digest of all that may not change, which has not changed.
    """

    name: str
    split: Split
    seed: int
    setting: Setting
    outcome: Outcome
    network: Network
    share: float | None
    val: dict[str, float]
    trials: list[dict[str, Any]]
    notes: list[str]
    frozen: str


def train_one(bench: Bench, name: str, split: Split, seed: int, setting: Setting | None = None) -> Trained:
    """Train with a setting, or find one first; FitError where what was to stay frozen has changed."""
    network = begin(bench, split.train, seed)
    start, frozen = network.state(), network.frozen_digest()
    job = bench.job(name, split, seed, setting or bench.plan.settings[0])
    found = bench.settle(network, job, searching=setting is None)
    state, share, val = _mixed(bench, network, start, found.outcome, job)
    network.load(state)
    if network.frozen_digest() != frozen:
        raise FitError("what was to stay frozen has changed", where=name, remedy="Report this bug")
    return Trained(name, split, seed, found.best, found.outcome, network, share, val, found.trials, found.notes, frozen)


def _mixed(
    bench: Bench, network: Network, start: State, outcome: Outcome, job: Job
) -> tuple[State, float | None, dict[str, float]]:
    """Mix the weights of the start and the end, as asked: -> the weights, the share of the end, what they are worth."""
    wise = bench.spec.tune.wise
    if wise is None:
        return outcome.state, None, outcome.val
    shares = SHARES if wise == AUTO else (float(wise),)
    found = []
    for share in shares:
        network.load(interpolate(start, outcome.state, share))
        if bench.plan.bn == MOVING:
            with lent(network, bench.device):
                recalibrate(network, bench.plain(job.train))
        found.append((network.state(), share, _worth(bench, network, job)))
    return min(found, key=lambda each: each[2]["loss"])


def _worth(bench: Bench, network: Network, job: Job) -> dict[str, float]:
    """Return what looks at the validation part do: its mean log-loss, classes weighed as in training, and accuracy."""
    scores, y = bench.scores(network, job.val), job.y[job.val]
    weights, codes = class_weights(job).double(), torch.from_numpy(y)
    loss = losses(torch.from_numpy(scores), Targets(codes, codes), weights).sum() / weights[codes].sum()
    return {"loss": loss.item(), "accuracy": float(np.mean(scores.argmax(axis=1) == y))}
