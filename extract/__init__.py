"""Images -> features: run a frozen ConvNet over a data set once and keep what its layers said.

from extract import FeatureExtractor, extract_features
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from extract.allocator import share_heap

if TYPE_CHECKING:
    from extract.features import extract_features
    from extract.transformer import FeatureExtractor

__all__ = ["FeatureExtractor", "extract_features"]

# Unless told otherwise before torch is imported, OpenMP's threads wait for each other by spinning. On cores that are
# shared with anything else, our own decoding threads included, that wastes most of them: passive waiting turned 58
# images/s into 350 on two busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
share_heap()  # before NumPy and torch start threads, too

HOMES = {"extract_features": "extract.features", "FeatureExtractor": "extract.transformer"}
"""What the package offers, and where it is defined: imported when asked for, since it imports torch."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
