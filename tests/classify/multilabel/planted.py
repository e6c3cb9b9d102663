"""Features in which several labels are planted, for tests of multi-label fits."""

from collections.abc import Callable

import numpy as np
from tiny_features import FakeFeatures

CLASSES = ["cat", "dog", "owl"]


def planted(
    make: Callable[..., FakeFeatures], n: int = 150, *, noise: float = 1.0, seed: int = 0, **known
) -> FakeFeatures:
    """Images with any of three labels; the tap `late` tells which, `early` a little, and some have none."""
    rng = np.random.default_rng(seed)
    Y = rng.random((n, 3)) < [0.5, 0.3, 0.2]
    cells = ["|".join(np.array(CLASSES)[row]) or "-" for row in Y]
    names = sorted(set(cells))
    late, early = Y @ rng.normal(size=(3, 12)), Y @ rng.normal(size=(3, 8)) * 0.3
    X = {
        name: (Z + noise * rng.normal(size=Z.shape)).astype(np.float32)
        for name, Z in (("early", early), ("late", late))
    }
    return make(np.array([names.index(cell) for cell in cells]), names, X=X, **known)
