"""How uneven the classes are, and which metric leads because of it."""

from typing import Any

import numpy as np

IMBALANCED = 3.0
"""Images of the largest class to one of the smallest, above which accuracy hides the small ones."""


def imbalance(y: np.ndarray) -> dict[str, Any]:
    """Return how many images the largest class has to one of the smallest, and the metric that leads: y (n,) codes."""
    counts = np.bincount(y)
    ratio = float(counts.max() / counts[counts > 0].min())
    return {"ratio": round(ratio, 3), "leads": "balanced_accuracy" if ratio > IMBALANCED else "accuracy"}


def leading_metric(y: np.ndarray) -> str:
    """Choose what a search maximises where nobody said."""
    return imbalance(y)["leads"]
