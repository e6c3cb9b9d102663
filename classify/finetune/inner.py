"""A part of the training images that says when to stop and which rate is best: the inner validation part."""

import numpy as np

from extract.errors import FitError

SHARE = 0.15
FEWEST, MOST = 20, 5000
"""Images: fewer say little of a loss, and more take time to look at and say no more."""
LARGEST = 1 / 3
"""Of the images, where that is fewer than `FEWEST`: what is trained on matters more."""


def inner_split(y: np.ndarray, groups: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Part (n,) codes into those that are trained on and those looked at: sorted positions (m,), (n - m,) int64.

    Classes in proportion, groups whole, each class trained on; a group is never parted, so where groups are large the
    share is as near as they allow. Raises FitError where nothing can be set apart.
    """
    raise NotImplementedError
