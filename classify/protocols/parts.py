"""Which training rows choose the setting: the published validation split, or the one that the published code draws."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from classify.protocols.protocol import ProtocolData
from extract.errors import FitError


@dataclass(frozen=True)
class Parts:
    """Rows that a setting is fitted on and rows that it is judged on, int64, and what to say of them."""

    train: np.ndarray
    val: np.ndarray
    notes: list[str]


def make_parts(data: ProtocolData, draw: Callable[[int], np.ndarray], words: str) -> Parts:
    """Take the published validation rows, else those that `draw(n)` names; FitError where a part would be empty."""
    n = len(data.y_train)
    if data.validation is not None and data.validation.any():
        val, said = np.flatnonzero(data.validation), "chosen on the validation split that is given"
    else:
        val, said = draw(n), f"no validation split is given: chosen on {words}"
    train = np.setdiff1d(np.arange(n), val)
    if not len(val) or len(np.unique(data.y_train[train])) < 2:
        words = f"{len(train)} images to fit on and {len(val)} to choose by, of {n}"
        raise FitError(f"{words}: too few, or of one class", remedy="Give more images, or another protocol")
    return Parts(train, val, [said, *_missing(data, train, val)])


def _missing(data: ProtocolData, train: np.ndarray, val: np.ndarray) -> list[str]:
    classes, said = set(data.y_train.tolist()), []
    for rows, words in ((train, "fit on"), (val, "choose by")):
        if gone := len(classes - set(data.y_train[rows].tolist())):
            said.append(f"{gone} of {len(classes)} classes have no image to {words}; means are over the others")
    return said


def numpy_share(share: float, seed: int) -> Callable[[int], np.ndarray]:
    """Draw the first `share` of the rows as `np.random.seed(seed); np.random.shuffle` orders them."""

    def draw(n: int) -> np.ndarray:
        order = np.arange(n)
        np.random.RandomState(seed).shuffle(order)
        return order[: int(np.floor(share * n))]

    return draw


def torch_share(divisor: int, seed: int) -> Callable[[int], np.ndarray]:
    """Draw the first 1/divisor of the rows as `torch.manual_seed(seed); torch.randperm(n)` orders them on a CPU."""
    return lambda n: torch_permutation(n, seed)[: n // divisor]


def torch_permutation(n: int, seed: int) -> np.ndarray:
    """Order 0..n-1 as torch's generator does, without torch: (n,) int64.

    Both draw 32 bits from an MT19937 that one integer has seeded, and shuffle from the front.
    """
    drawn = np.random.RandomState(seed).randint(0, 2**32, size=max(0, n - 1), dtype=np.uint32).astype(np.int64)
    offsets = (drawn % np.arange(n, 1, -1)).tolist()
    order = list(range(n))
    for at, offset in enumerate(offsets):
        order[at], order[at + offset] = order[at + offset], order[at]
    return np.array(order, dtype=np.int64)
