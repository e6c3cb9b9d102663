"""The gradients of one batch: its examples mixed, weighed by class, and taken in parts as large as the memory takes."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.finetune.job import Device, Job
from classify.finetune.log import Log
from classify.finetune.network import MOVING
from classify.finetune.ranks import Ranks
from extract.errors import TrainingError
from extract.runners.chunks import REMEDY, out_of_memory

TOGETHER = "Take a smaller --batch-size, or more --processes, each on a device of its own"
SEEDS = 2**64


@dataclass(frozen=True, slots=True)
class Targets:
    """What examples are to be recognised as: a `share` of each as `first`, the rest as `second`, both (n,) int64."""

    first: Tensor
    second: Tensor
    share: float = 1.0

    def split(self, n_parts: int) -> "list[Targets]":
        """Part them as `Tensor.tensor_split` does."""
        parts = zip(self.first.tensor_split(n_parts), self.second.tensor_split(n_parts), strict=True)
        return [Targets(first, second, self.share) for first, second in parts]


def draw_seed(seed: int, step: int) -> int:
    """Return a seed of 64 bits for one step of one training."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])


def mixed(x: Tensor, y: Tensor, alpha: float, seed: int) -> tuple[Tensor, Targets]:
    """Mix each example with another of its batch (mixup, Zhang et al. 2018), by one share from Beta(alpha, alpha).

    x (n, ...) stays of its type, y (n,) int64. Pixels are mixed before they are normalised, which is the same but for
    the rounding to half a grey level, as normalising is affine.
    """
    if not alpha:
        return x, Targets(y, y)
    chance = np.random.default_rng(seed)
    share, others = float(chance.beta(alpha, alpha)), torch.from_numpy(chance.permutation(len(x))).to(x.device)
    blend = torch.lerp(x[others].float(), x.float(), share)
    return blend.round().to(x.dtype) if x.dtype == torch.uint8 else blend, Targets(y, y[others], share)


def class_weights(job: Job) -> Tensor:
    """Return what an example of each class counts: (C,) float32; 1, or n / (C n_c) where classes are balanced."""
    counts = np.bincount(job.y[job.train], minlength=int(job.y.max()) + 1)
    if job.plan.class_weight is None:
        return torch.ones(len(counts))
    return torch.from_numpy(counts.sum() / (len(counts) * np.maximum(counts, 1))).float()


def losses(logits: Tensor, targets: Targets, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross entropy of each example, times what its class counts: logits (n, C) -> (n,), in nats."""

    def of(y: Tensor) -> Tensor:
        return weights[y] * F.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)

    first = of(targets.first)
    return first if targets.share == 1 else targets.share * first + (1 - targets.share) * of(targets.second)


class Gradients:
    """Adds up the gradients of a batch in a network: those of its mean loss, whatever parts it is taken in.

    `part` is how many images are taken at once: all, until the memory does not suffice. The sum is that of the whole
    batch up to rounding, but for dropout, which is drawn part by part, and BatchNorm that trains, which sees only a
    part at a time, and those that did not fit twice. Of several processes each is given its own part of the batch,
    mixes images with others of it, and is left with the gradients of the whole; none may run out of memory, as the
    others would wait for it.
    """

    def __init__(self, network: nn.Module, job: Job, device: Device, log: Log) -> None:
        self._network, self._plan, self._device, self._log = network, job.plan, device, log
        self._ranks = Ranks.here()
        self._name = job.name
        self.weights = class_weights(job).to(device.torch)
        self.part = -(-job.plan.batch_size // self._ranks.size)
        self._forward = self._joined()

    def join(self) -> None:
        """Have the gradients of all processes added up, of what may train by now."""
        if not self._ranks.alone:
            self._forward = self._joined()

    def _joined(self) -> nn.Module:
        whole = self._ranks.joined(self._network)
        return torch.compile(whole) if self._device.compile else whole  # pyright: ignore[reportReturnType] it is one

    def __call__(self, x: Tensor, y: Tensor, seed: int) -> Tensor:
        """Leave the gradients of the mean loss of x (n, ...), y (n,), and return the loss ().

        Raises TrainingError where the memory does not suffice for one image.
        """
        x, targets = mixed(x, y, self._plan.mixup, seed)
        while True:
            try:
                return self._add_up(x, targets, seed)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                failure = error.with_traceback(None)  # its frames hold the tensors that are to be freed
            self._halve(len(x), failure)

    def _add_up(self, x: Tensor, targets: Targets, seed: int) -> Tensor:
        torch.manual_seed((seed + self._ranks.rank) % SEEDS)
        self._network.zero_grad(set_to_none=True)
        n_images = len(x) if self._ranks.alone else self._plan.batch_size / self._ranks.size
        n_parts, total = -(-len(x) // self.part), torch.zeros((), device=x.device)
        for part, wanted in zip(x.tensor_split(n_parts), targets.split(n_parts), strict=True):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self._device.precision == "bf16"):
                logits = self._forward(part)
            loss = losses(logits, wanted, self.weights, self._plan.label_smoothing).sum() / n_images
            loss.backward()
            total += loss.detach()
        self._ranks.mean([total])
        return total

    def _halve(self, n: int, failure: Exception) -> None:
        """Make room, and go on with half as many images at once."""
        if not self._ranks.alone:
            said = f"the memory does not suffice for the {n} images of one process"
            raise TrainingError(said, where=self._name, remedy=TOGETHER) from failure
        self._network.zero_grad(set_to_none=True)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        tried = min(self.part, n)
        if tried == 1:
            raise TrainingError(
                "the memory does not suffice for one image", where=self._name, remedy=REMEDY
            ) from failure
        self.part = -(-tried // 2)
        seen = "BatchNorm learns from so many only" if self._plan.bn == MOVING else "the gradients are the same"
        self._log.note(f"out of memory with {tried} images at once: going on with {self.part}; {seen}")
