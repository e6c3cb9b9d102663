"""Whether the parts of a bundle fit each other: all that comes from a file is doubted, and refused by ValueError."""

import math
from typing import Any

import numpy as np

from classify.scoring import OPTIONAL_SHAPES, ROWWISE, SHAPES, Arrays
from classify.thresholds import MAX_ROWS, RULES, Abstain, Conformal, OpenSet
from extract.recipe import Recipe

TASKS = ("single", "multi")
MULTI_KINDS = ("linear",)
"""Heads that score every class by itself, which is what several labels an image need."""
MAX_LAYERS = 64
NOT_UNIT = 0.01
"""How far from 1 the length of a float16 row of length 1 may be."""


def check_said(said: dict[str, Any], recipe: Recipe) -> None:
    """Check what a manifest says but for thresholds: key, taps, transform, task, kind, classes, temperature."""
    if recipe.key != said["features_key"]:
        raise ValueError("the recipe is not the one that was fitted")
    _check_layers(said["layers"], recipe)
    for name, known in {"transform": ROWWISE, "task": TASKS, "kind": SHAPES}.items():
        if not isinstance(said[name], str) or said[name] not in known:
            raise ValueError(f"no {name} {said[name]!r:.80}")
    if said["task"] == "multi" and said["kind"] not in MULTI_KINDS:
        raise ValueError(f"a {said['kind']} head gives one label an image")
    if not (isinstance(said["head"], str) and isinstance(said["params"], dict)):
        raise ValueError("a head without a name or without parameters")  # noqa: TRY004 as every refusal here
    names, temperature = said["classes"], said["temperature"]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("classes that are no names")
    if not is_number(temperature) or temperature <= 0:
        raise ValueError("a temperature that is no number above 0")


def _check_layers(layers: Any, recipe: Recipe) -> None:
    known = [tap.name for tap in recipe.taps if not tap.is_map]
    if not isinstance(layers, list) or not 1 <= len(layers) <= MAX_LAYERS:
        raise ValueError("no list of layers")
    for layer in layers:
        if layer not in known:
            raise ValueError(f"the recipe has no layer {layer!r:.80} of rows")
    if len(set(layers)) < len(layers):
        raise ValueError("a layer is named twice")


def is_number(value: Any) -> bool:
    """Tell whether a value of JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_arrays(kind: str, arrays: Arrays, n_classes: int) -> int:
    """Check names, shapes and numbers of a head's arrays; return D, the columns of the features that it takes."""
    axes_of = SHAPES[kind] | {name: a for name, a in OPTIONAL_SHAPES.get(kind, {}).items() if name in arrays}
    if set(arrays) != set(axes_of):
        raise ValueError(f"arrays {sorted(arrays)} of a {kind} head"[:200])
    sizes = {"C": n_classes}
    for name, axes in axes_of.items():
        array = arrays[name]
        if array.ndim != len(axes) or any(sizes.setdefault(a, n) != n for a, n in zip(axes, array.shape, strict=True)):
            raise ValueError(f"the array {name!r} has the shape {array.shape}")
        if array.dtype.kind not in "fi" or not (np.isfinite(array) | _drops(name, array)).all():
            raise ValueError(f"the array {name!r} holds what is no number")
    if "scale" in arrays and not (arrays["scale"] > 0).all():
        raise ValueError("a scale that is not above 0")
    if kind == "knn" and not _knn_indexes(arrays, n_classes):
        raise ValueError("neighbours beyond the rows or classes")
    return sizes["D"]


def _drops(name: str, array: np.ndarray) -> np.ndarray | bool:
    """Tell which numbers stand for a feature that is dropped: a scale of infinity, behind which all are 0."""
    return array == np.inf if name == "scale" else False


def _knn_indexes(arrays: Arrays, n_classes: int) -> bool:
    codes = arrays["codes"]
    return (
        codes.dtype.kind == "i"
        and sorted(set(codes.tolist())) == list(range(n_classes))
        and 1 <= int(arrays["k"]) <= len(codes)
    )


def read_conformal(said: Any, n_classes: int) -> Conformal | None:
    """Read the sets' thresholds, one for each class; None where there are none."""
    if said is None:
        return None
    shares = said["thresholds"]
    if not isinstance(shares, list) or len(shares) != n_classes or not all(map(is_share, [said["alpha"], *shares])):
        raise ValueError("thresholds of sets that are no share for each class")
    if not isinstance(said["class_conditional"], bool) or not _is_count(said["n"]):
        raise ValueError("sets that were calibrated on no number of rows")
    return Conformal(said["alpha"], tuple(shares), said["class_conditional"], said["n"])


def read_abstain(said: Any) -> Abstain | None:
    """Read the threshold below which there is no answer."""
    if said is None:
        return None
    found = Abstain(**said)
    shares = (found.threshold, found.asked, found.coverage, found.accuracy_of_answered)
    if found.by not in RULES or not all(map(is_share, shares)):
        raise ValueError("an abstain threshold that is no share")
    return found


def read_label_thresholds(said: Any, task: str, n_classes: int) -> tuple[float, ...]:
    """Read from which probability on an image has a label: one for each class where there may be several labels."""
    if task == "single" and said is None:
        return ()
    if task == "single" or not isinstance(said, list) or len(said) != n_classes or not all(map(is_share, said)):
        raise ValueError("thresholds of labels that are no share for each class")
    return tuple(said)


def read_open_set(said: Any, arrays: Arrays, width: int) -> OpenSet | None:
    """Read the reference rows, which have as many columns as the head takes, and their threshold."""
    if said is None and not arrays:
        return None
    if said is None or set(arrays) != {"rows"}:
        raise ValueError("reference rows without a threshold, or a threshold without rows")
    rows = arrays["rows"]
    _check_reference(rows, width)
    if not is_number(said["threshold"]) or said["threshold"] <= 0 or not is_share(said["quantile"]):
        raise ValueError("an open-set threshold that is no number above 0")
    if not _is_count(said["k"]) or said["k"] > len(rows) or not _is_count(said["n_seen"]):
        raise ValueError("an open-set k beyond the reference rows")
    return OpenSet(rows, said["k"], said["threshold"], said["quantile"], said["n_seen"])


def _check_reference(rows: np.ndarray, width: int) -> None:
    if rows.dtype != np.float16 or rows.ndim != 2 or not 1 <= len(rows) <= MAX_ROWS or rows.shape[1] != width:
        raise ValueError(f"reference rows of the shape {rows.shape}, type {rows.dtype}")
    lengths = np.linalg.norm(rows.astype(np.float32), axis=1)
    if not ((np.abs(lengths - 1) < NOT_UNIT) | (lengths == 0)).all():
        raise ValueError("reference rows that are not of length 1")


def is_share(value: Any) -> bool:
    """Tell whether a value of JSON is a number from 0 to 1; NaN is none."""
    return is_number(value) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
