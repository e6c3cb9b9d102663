"""What a network is trained on, batch by batch: pixels of images, or cached maps of a trunk.

Which image comes when, and what is drawn of it, follows from the seed and the step alone: a training that goes on from
a step sees what it would have seen had it never stopped.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Protocol

import numpy as np
from torch import Tensor

from classify.finetune.plan import Augment
from classify.finetune.ranks import Ranks

ALONE = Ranks()


@dataclass(frozen=True, slots=True)
class Batch:
    """Some examples: `x` (n, 3, S, S) uint8 pixels or (n, C, H, W) float32 maps, `y` (n,) int64 codes.

    `at` (n,) int64 says which they are, as positions into the training part. `x` lies on the device of the examples,
    in memory of its own; `y` on the CPU.
    """

    x: Tensor
    y: Tensor
    at: np.ndarray


class Examples(Protocol):
    """The images of a training part, as a network takes them in. `cached` tells maps of a trunk from pixels.

    An iterator that is left early is to be closed; of each kind one is used at a time.
    """

    cached: bool

    def drawn(
        self, at: np.ndarray, *, batch_size: int, seed: int, start: int, augment: Augment, ranks: Ranks = ALONE
    ) -> Generator[Batch, None, None]:
        """Yield batches without end, from step `start` on as if it had begun at 0; `at` (n,) says of which examples.

        Each epoch has all of them in an order of its own, and batches run across epochs: none is short, nothing is
        left out. What is drawn of an image depends on the seed and the epoch. Of several processes each has its part of
        every batch, and together they have what one alone would.
        """
        ...

    def plain(self, at: np.ndarray, *, batch_size: int) -> Generator[Batch, None, None]:
        """Yield the examples `at` (n,) once, in order, as the network looks at images that it is to recognise."""
        ...


def draws(
    n: int, *, batch_size: int, seed: int, start: int = 0, ranks: Ranks = ALONE
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each step from `start` on whose turn it is, in 0..n-1 (B,) int64, and in which epoch (B,) int64.

    Of several processes each is told of its part of the B alone.
    """

    @lru_cache(maxsize=2)
    def shuffled(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(n)

    for step in count(start):
        batch = np.arange(step * batch_size, (step + 1) * batch_size)
        epochs, turns = np.divmod(ranks.part(batch), n)
        parts = [shuffled(epoch)[turns[epochs == epoch]] for epoch in range(epochs[0], epochs[-1] + 1)]
        yield np.concatenate(parts), epochs
