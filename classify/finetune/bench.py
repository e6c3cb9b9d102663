"""One training after the other, on the same images: what they share, how each is run, and how its weights score."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classify.finetune import checkpoint
from classify.finetune.examples import Examples
from classify.finetune.job import Device, Job, digest_of
from classify.finetune.log import Log
from classify.finetune.network import Network
from classify.finetune.order import ANSWER, ORDER, PROGRESS, Desk, Order
from classify.finetune.plan import Plan, Setting
from classify.finetune.search import Searched
from classify.finetune.shown import Shown
from classify.finetune.site import Site
from classify.finetune.strategies import Strategy
from classify.finetune.together import Group
from classify.inputs import Inputs
from classify.scoring import Arrays
from classify.spec import FitSpec
from extract.backbones.weights import State
from extract.devices import full_fp32
from extract.parts import Parts, open_parts

MOST_AT_ONCE = 128
"""Images that are scored at a time, whatever is trained on in a step: a step may be taken in parts."""

KEPT = (checkpoint.FILE, ORDER, ANSWER, PROGRESS)
"""What a training may leave in its folder."""


@dataclass(frozen=True, eq=False)
class Split:
    """What a training learns from and what tells it when to stop: positions in the training part, sorted."""

    train: np.ndarray
    val: np.ndarray


@dataclass(frozen=True, eq=False)
class Bench:
    """What all trainings of a fit share.

    `examples` are those of the training part and, behind them, of the test part; `shown` says where they come from, and
    `data` names it all. A `group` of processes trains each network together, where there is one.
    `weights` are those of the network that computed the features. `facts` are for the run to say; `folders` are the
    checkpoints that were made, `heads` the probe's by what they were fitted on.
    """

    spec: FitSpec
    inputs: Inputs
    strategy: Strategy
    tap: str
    until: str | None
    weights: State
    examples: Examples
    shown: Shown
    data: str
    plan: Plan
    device: Device
    log: Log
    group: Group | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)
    heads: dict[str, Arrays] = field(default_factory=dict)

    def parts(self, weights: State) -> Parts:
        """Return the network in its parts, with weights."""
        return open_parts(self.inputs.features.recipe, weights, tap=self.tap, until=self.until)

    def network(self, weights: State) -> Network:
        """Return the network with weights, its head all zeros."""
        preset, classes = self.inputs.features.recipe.preprocessing, self.inputs.data.classes
        return Network(self.parts(weights), len(classes), preset, bn=self.plan.bn)

    def job(self, name: str, split: Split, seed: int, setting: Setting, *, trial: bool = False) -> Job:
        """Return what is to be done."""
        return Job(
            plan=self.plan,
            setting=setting,
            seed=seed,
            train=split.train,
            val=split.val,
            y=self.inputs.data.train.y,
            data=self.data,
            name=name,
            trial=trial,
            checkpoint_s=self.spec.tune.checkpoint_s,
        )

    def settle(self, network: Network, job: Job, *, searching: bool) -> Searched:
        """Train a network, its setting found first where that is asked for: here, or by several processes."""
        if self.group is None:
            site = Site(self.examples, self.device, self.log, self.inputs.features.folder, self.folders)
            return site.settle(network, job, searching=searching)
        digest = digest_of(job, network.live(), network.frozen_digest(), self.device, self.group.size)
        desk = Desk(checkpoint.training_folder(self.inputs.features.folder, digest), digest)
        self.folders.add(desk.folder)
        found, folders = self.group.settle(desk, self._order(network, job, searching=searching), self.log)
        self.folders.update(folders)
        return found

    def _order(self, network: Network, job: Job, *, searching: bool) -> Order:
        return Order(
            job=job,
            searching=searching,
            shown=self.shown,
            tap=self.tap,
            until=self.until,
            n_classes=len(self.inputs.data.classes),
            device=self.device,
            workers=max(1, self.spec.jobs // (self.group.size if self.group else 1)),
            start=network.state(),
        )

    def scores(self, network: Network, at: np.ndarray) -> np.ndarray:
        """Score positions (n,) in fp32 and eval mode: -> (n, C) float64."""
        network.eval()
        with lent(network, self.device), torch.no_grad(), full_fp32():
            return np.concatenate([network(x).double().cpu().numpy() for x in self.plain(at)])

    def plain(self, at: np.ndarray) -> Iterator[Tensor]:
        """Yield what the network takes of positions (n,), batch by batch, in order, nothing drawn."""
        batches = self.examples.plain(at, batch_size=min(self.plan.batch_size, MOST_AT_ONCE))
        return (batch.x.to(self.device.torch) for batch in batches)

    def forget(self) -> None:
        """Remove the checkpoints: what came of the trainings is kept elsewhere by now."""
        for folder in self.folders:
            checkpoint.forget(folder, KEPT)


@contextmanager
def lent(network: Network, device: Device) -> Iterator[None]:
    """Have a network on its device for a while."""
    network.to(device.torch)
    try:
        yield
    finally:
        network.to("cpu")
