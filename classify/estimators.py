"""A classifier by import path, stored without pickle: only what skops trusts by itself, and only arrays and settings.

skops builds estimators without calling their constructors and sets their attributes. It has had holes by which a file
named functions to be called (CVE-2025-54412, -54413), so the outline of a file is checked here before skops sees it:
types of scikit-learn, numpy, scipy and Python's own containers, no functions, no methods, nothing packed. Nothing that
is loaded can run. But compiled code of scikit-learn believes the numbers that are loaded: trees are checked, and what
else a liar makes up, as the support vectors of an SVC, may crash it. The formulas of our own heads are safe from that.
"""

import io
import json
import tokenize
import zipfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from classify.trees import TREE, tree_doubts
from extract.errors import BundleError, FitError, first_line

PACKAGES = ("builtins", "collections", "numpy", "scipy", "sklearn")
LOADERS = (
    *("CachedNode", "DictNode", "DTypeNode", "JsonNode", "ListNode", "LossNode", "NdArrayNode", "ObjectNode"),
    *("RandomGeneratorNode", "RandomStateNode", "SetNode", "SliceNode", "TreeNode", "TupleNode", "TypeNode"),
)
"""Of skops: what makes containers, arrays, estimators, trees; left out is what finds functions and methods by name."""
SCHEMA, MAX_SCHEMA_BYTES = "schema.json", 64 << 20
REMEDY = "Take a head of ours (logistic, ridge, knn, ...), or another classifier of scikit-learn"
BROKEN = (
    *(ValueError, TypeError, LookupError, AttributeError, ImportError, ArithmeticError, AssertionError),
    *(EOFError, OSError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile),
)
"""What skops, numpy and scikit-learn raise at a file that they did not write. RuntimeError holds RecursionError."""


def store_model(model: Any, width: int) -> bytes:
    """Write a fitted classifier on `width` columns as skops; FitError where it holds what no bundle may.

    Trees are all that is trusted beyond what skops trusts, once they are checked.
    """
    skops = _skops(FitError)
    name = type(model).__name__
    try:
        data = skops.dumps(model)
        doubts = {*_doubts(data, width), *skops.get_untrusted_types(data=data)} - {TREE}
        if not doubts:
            skops.loads(data, trusted=[TREE])
    except BROKEN as error:
        raise FitError(f"{name} cannot be kept in a bundle ({first_line(error)})", remedy=REMEDY) from error
    if doubts:
        raise FitError(f"{name} cannot be kept in a bundle: it holds {', '.join(sorted(doubts)[:3])}", remedy=REMEDY)
    return data


def load_model(data: bytes, width: int, n_classes: int, where: str) -> Any:
    """Read what `store_model` wrote: a classifier of rows (n, width) into codes 0..C-1. Else raises BundleError."""
    skops = _skops(BundleError)
    try:
        if doubts := _doubts(data, width):
            raise ValueError(f"it holds {doubts[0]}")
        model = skops.loads(data, trusted=[TREE])
        _check_classifier(model, n_classes)
    except (*BROKEN, skops.exceptions.UntrustedTypesFoundException) as error:
        said = f"not a head of ours: {first_line(error)}"
        raise BundleError(said, where=where, remedy="Run fit again") from error
    return model


def _skops(error: type[FitError] | type[BundleError]) -> ModuleType:
    try:
        import skops.io as skops
    except ImportError as reason:
        remedy = 'Install it: pip install "offshelf[any-head]"'
        raise error("a head by import path is stored by skops, which is not installed", remedy=remedy) from reason
    return skops


def _doubts(data: bytes, width: int) -> list[str]:
    """List what a file may not hold, without making anything of it; [] for one to go on with."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = file.infolist()
        if odd := [each.filename for each in members if not _is_plain(each)]:
            return [f"the file {odd[0]!r:.80}"]
        if sum(each.file_size for each in members) > len(data):
            return ["more than its size"]
        nodes = list(_nodes(json.loads(file.read(SCHEMA))))
        if doubts := [said for node in nodes if (said := _doubt(node))]:
            return doubts
        return list(tree_doubts(nodes, file.read, width))


def _is_plain(member: zipfile.ZipInfo) -> bool:
    stored = member.compress_type == zipfile.ZIP_STORED and member.file_size == member.compress_size
    small = member.filename.endswith(".npy") or (member.filename == SCHEMA and member.file_size <= MAX_SCHEMA_BYTES)
    return stored and small


def _nodes(outline: Any) -> Iterator[dict[str, Any]]:
    """Walk through all that may be a node, without recursion: files may nest deeper than the stack."""
    left = [outline]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left += value.values()
        elif isinstance(value, list):
            left += value


def _doubt(node: dict[str, Any]) -> str:
    """Say what is wrong with one node; '' for nothing, or for a plain mapping inside a node."""
    if not node.keys() & {"__loader__", "__module__", "__class__"}:
        return ""
    module, loader = str(node.get("__module__")), str(node.get("__loader__"))
    if module.partition(".")[0] in PACKAGES and loader in LOADERS:
        return ""
    return f"{module:.60}.{node.get('__class__')!s:.60}"


def _check_classifier(model: Any, n_classes: int) -> None:
    """Raise ValueError unless a model is an estimator of scikit-learn that scores the codes 0..C-1."""
    if type(model).__module__.partition(".")[0] != "sklearn" or not hasattr(model, "classes_"):
        raise ValueError(f"a {type(model).__name__} is no classifier of scikit-learn")
    if np.asarray(model.classes_).tolist() != list(range(n_classes)):
        raise ValueError(f"its classes are not 0 to {n_classes - 1}")
