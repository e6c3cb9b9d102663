"""Batches of one size only, for what is compiled for that size: smaller ones are filled up, and their rows cut off."""

from collections.abc import Callable

import torch
from torch import Tensor

Run = Callable[[Tensor], dict[str, Tensor]]


def blank(size: int, side: int, device: torch.device) -> Tensor:
    """Return a batch without content: (size, 3, side, side) uint8, channels last."""
    shape = size, 3, side, side
    return torch.zeros(shape, dtype=torch.uint8, device=device).contiguous(memory_format=torch.channels_last)


class Padded:
    """Runs batches of up to `size` images through `run`, which takes exactly `batch`, always the same memory.

    Rows are copies: `run` may give the same memory every time.
    """

    def __init__(self, run: Run, batch: Tensor) -> None:
        self._run, self._batch = run, batch

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        """(n, 3, S, S) uint8 -> per tap (n, *shape)."""
        self._batch[: len(pixels)].copy_(pixels)
        return {name: values[: len(pixels)].clone() for name, values in self._run(self._batch).items()}
