"""A training of a few numbers: noise of a brightness that tells its class, seen by the network of `tiny_parts`."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tiny_parts import PRESET, tiny_parts

from classify.finetune.examples import ALONE, Batch, draws
from classify.finetune.job import Job
from classify.finetune.log import Log
from classify.finetune.network import Network
from classify.finetune.plan import Augment, Plan, Setting
from classify.finetune.ranks import Ranks
from extract.progress import Silent

CLASSES, IMAGES = 3, 30
PLAN = Plan(
    recipe="auto",
    steps=12,
    batch_size=8,
    settings=(),
    warmup_steps=2,
    evaluate_every=4,
    augment=Augment(crop=False, flip=False),
)


class TinyExamples:
    """Examples in memory; what is drawn of one is a shift in brightness by seed, epoch and example."""

    cached = False

    def __init__(self, n: int = IMAGES, *, seed: int = 0) -> None:
        chance = np.random.default_rng(seed)
        self.y = np.arange(n) % CLASSES
        noise = chance.integers(0, 50, (n, 3, 12, 12))
        self.x = torch.from_numpy((noise + 80 * self.y[:, None, None, None]).astype(np.uint8))
        self.closed = 0

    def drawn(
        self, at: np.ndarray, *, batch_size: int, seed: int, start: int, augment: Augment, ranks: Ranks = ALONE
    ) -> Iterator[Batch]:
        try:
            for turns, epochs in draws(len(at), batch_size=batch_size, seed=seed, start=start, ranks=ranks):
                shifts = [np.random.default_rng((seed, *pair)).integers(40) for pair in zip(turns, epochs, strict=True)]
                batch = self._batch(at[turns])
                yield replace(batch, x=batch.x + torch.tensor(shifts, dtype=torch.uint8).reshape(-1, 1, 1, 1))
        finally:
            self.closed += 1

    def plain(self, at: np.ndarray, *, batch_size: int) -> Iterator[Batch]:
        for begin in range(0, len(at), batch_size):
            yield self._batch(at[begin : begin + batch_size])

    def _batch(self, at: np.ndarray) -> Batch:
        return Batch(self.x[at], torch.from_numpy(self.y[at]), at)


def tiny_network(*, bn: str = "frozen", trunk: bool = True, dropout: float = 0.5) -> Network:
    network = Network(tiny_parts(trunk=trunk), CLASSES, PRESET, bn=bn)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return network


def tiny_job(examples: TinyExamples, *, seed: int = 0, rate: float = 0.2, **changes: Any) -> Job:
    """A training on two thirds of the examples; what is no field of a job is one of its plan."""
    fields = {name: changes.pop(name) for name in ("name", "trial", "checkpoint_s", "data") if name in changes}
    n = len(examples.y)
    plan = replace(PLAN, **changes)
    train, val = np.arange(n * 2 // 3), np.arange(n * 2 // 3, n)
    return Job(plan, Setting(rate, 1e-3), seed, train, val, examples.y, **{"data": "tiny", **fields})


def silent() -> Log:
    return Log(Silent())
