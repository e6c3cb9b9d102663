"""The processes that train one network together: which of them this is, and what they tell each other.

Alone there is one, which has nobody to tell. Who started them, and how they found each other, is nothing to a training.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process is number `rank` of `size`; all of them come to each method that tells something, in one order."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Self:
        """Return who this process is: one of the group of `torch.distributed`, or alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks for all."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def part(self, at: np.ndarray) -> np.ndarray:
        """Return what of positions (n,) is this process's: parts in order, as even as can be."""
        return np.array_split(at, self.size)[self.rank]

    def sum(self, value: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place, to the same bits in each of them."""
        if not self.alone:
            dist.all_reduce(value)
        return value

    def mean(self, values: Iterable[Tensor]) -> None:
        """Make each tensor, in place, its mean over all processes."""
        for value in () if self.alone else values:
            self.sum(value).div_(self.size)

    def of_first(self, value: T) -> T:
        """Return the value that the first process has; it has come to this place before any other goes on."""
        if self.alone:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def joined(self, network: nn.Module) -> nn.Module:
        """Return a network whose backward pass leaves, in each process, the mean of the gradients of all.

        Only what may train by now counts: make it anew where that changes.
        """
        return network if self.alone else DistributedDataParallel(network)

    def synchronise(self, network: nn.Module, device: torch.device) -> None:
        """Have each BatchNorm inside that trains see the images of all processes; there are such for GPUs alone."""
        if not self.alone and device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
