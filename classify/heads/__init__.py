"""The classifiers on top: each an ordinary sklearn pipeline, the values to try, its arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

from classify.heads.head import ARRAYS, CLASS_WEIGHTS, SKLEARN_SCORES, Head, converged, pad
from classify.heads.imported import imported
from classify.heads.params import parse_params
from classify.heads.table import HEADS
from extract.errors import OptionError, unknown

__all__ = [
    "ARRAYS",
    "CLASS_WEIGHTS",
    "HEADS",
    "SKLEARN_SCORES",
    "Head",
    "converged",
    "find_head",
    "imported",
    "pad",
    "parse_params",
]


def find_head(name: str, params: Mapping[str, Sequence[Any]] | None = None) -> Head:
    """Return the head of that name, or the classifier at that import path with the values of `params` to try."""
    if "." in name:
        return imported(name, params)
    if name not in HEADS:
        remedy = "Name a classifier by its path: sklearn.ensemble.RandomForestClassifier"
        unknown("head", name, HEADS, OptionError, remedy=remedy)
    if params:
        remedy = "Take a head by its path, as sklearn.ensemble.RandomForestClassifier"
        raise OptionError(f"parameters mean nothing to the head {name!r}", remedy=remedy)
    return HEADS[name]
