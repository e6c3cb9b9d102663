"""The training loop: steps, looks at the validation part, checkpoints; what it sees follows from seed and step alone.

A training that was killed goes on from its last checkpoint, on a CPU to the very bits it would have come to.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from classify.finetune import checkpoint
from classify.finetune.examples import Examples
from classify.finetune.job import Device, Job, Outcome, digest_of
from classify.finetune.log import Log
from classify.finetune.network import Network
from classify.finetune.ranks import Ranks
from classify.finetune.training import DivergedError, Training


def train(
    network: Network,
    examples: Examples,
    job: Job,
    device: Device,
    folder: Path,
    log: Log,
    *,
    stop_at: int | None = None,
) -> Outcome:
    """Train to the end, or to the first look from step `stop_at` on; go on from the checkpoint in `folder`.

    The network comes with the weights to begin with, and is left with them: an outcome has its own. It is evaluated in
    fp32 and eval mode, with averaged weights where there are any. Where `torch.distributed` has joined several
    processes, each calls this, takes its part of every batch, and returns the same; the first writes the checkpoint.
    Raises TrainingError where the loss is no number, unless this is a trial; where the memory does not suffice for one
    image; where `folder` holds another training.
    """
    with _lent(network, device), _own_draws(device):
        ranks = Ranks.here()
        digest = digest_of(job, network.live(), network.frozen_digest(), device, ranks.size)
        training = Training(network, examples, job, device, log)
        training.resume(ranks.of_first(checkpoint.read(folder, digest) if ranks.first else None))

        def keep() -> None:
            if ranks.first:
                checkpoint.write(folder, digest, training.as_dict())

        try:
            _run(training, stop_at or job.plan.steps, keep)
        except DivergedError:
            if not job.trial:
                raise
            return training.outcome(diverged=True)
        return training.outcome()


def _run(training: Training, stop_at: int, keep: Callable[[], None]) -> None:
    """Take steps, look every now and then and keep it more often, until it is finished or has come to `stop_at`."""
    if not training.history:
        training.look()
    if training.came_to(stop_at):
        return
    kept_at = time.monotonic()
    with training.batches() as batches:
        while not training.came_to(stop_at):
            training.take(next(batches))
            if training.due:
                training.look()
            if time.monotonic() - kept_at >= training.job.checkpoint_s:
                keep()
                kept_at = time.monotonic()
    keep()


@contextmanager
def _lent(network: Network, device: Device) -> Iterator[None]:
    """Have a network on a device, and leave it there as it came otherwise."""
    start = network.state()
    network.to(device=device.torch, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] a form it has
    try:
        yield
    finally:
        network.zero_grad(set_to_none=True)
        network.unfreeze(None)
        network.load(start)
        network.eval()


def _own_draws(device: Device) -> AbstractContextManager[None]:
    """Leave everyone else's random numbers as they are."""
    return torch.random.fork_rng([device.torch] if device.torch.type == "cuda" else [])
