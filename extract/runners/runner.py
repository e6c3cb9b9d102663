"""What runs a network: one runner for all of it, and one lane for each thread."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

Lane = Callable[[Tensor], dict[str, Tensor]]
"""Takes (n, 3, S, S) uint8, channels last, on the extractor's device; n up to the batch size of the runner.

Gives per tap (n, *shape) in the recipe's stored type, on the same device.
"""


class Runner(Protocol):
    """A network made ready to run: `name` tells by what."""

    name: str

    def lane(self) -> Lane:
        """Return a lane for the thread that asks, which is its only user; lanes run at the same time."""
        ...
