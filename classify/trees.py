"""Decision trees in the outline of a skops file: whether scikit-learn can walk through them without leaving memory.

scikit-learn follows the children and features of a node without asking whether they exist, so skops does not trust
trees (its pull request 535): they are checked here, before any is made.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

TREE = "sklearn.tree._tree.Tree"
LEAF = -1
BY_ANOTHER_COUNT = "GradientBoostingClassifier"
"""Its compiled code writes into as many columns as another attribute says."""

Node = dict[str, Any]
Read = Callable[[str], bytes]


def tree_doubts(nodes: Sequence[Node], read: Read, width: int) -> Iterator[str]:
    """Say what is wrong with the trees among the nodes of an outline, whose rows have `width` columns.

    `read` gives the file of an array. Raises KeyError, ValueError and their kin at trees of another form.
    """
    trees = [node for node in nodes if node.get("__loader__") == "TreeNode"]
    if not trees:
        return
    yield from _disguised(nodes)
    if any(node.get("__class__") == BY_ANOTHER_COUNT for node in nodes):
        yield f"trees in a {BY_ANOTHER_COUNT}"
    for node in nodes:
        known = node.keys() & {"tree_", "estimators_", "n_features_in_"}
        if known and _whole(node["n_features_in_"]) != width:
            yield f"an estimator of other than {width} columns"
    if not all(_is_whole_tree(tree, read, width) for tree in trees):
        yield "a tree with branches to nowhere"


def _disguised(nodes: Sequence[Node]) -> Iterator[str]:
    """Find nodes of one number and different contents: skops would take the first for the second."""
    seen: dict[Any, Node] = {}
    for node in nodes:
        if "__id__" not in node or node.get("__loader__") == "CachedNode":
            continue
        if not _same(seen.setdefault(node["__id__"], node), node):
            yield "two parts of one number"


def _same(one: Any, other: Any) -> bool:
    """Compare two nodes but for the numbers inside, which tell of nodes that are compared themselves."""
    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        names = one.keys() - {"__id__"}
        return names == other.keys() - {"__id__"} and all(_same(one[name], other[name]) for name in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _is_whole_tree(node: Node, read: Read, width: int) -> bool:
    n_features, classes, n_outputs = node["__reduce__"]["args"]["content"]
    state = node["content"]["content"]
    nodes = _array(state["nodes"], read)
    if (_whole(n_features), _whole(n_outputs), _whole(state["node_count"])) != (width, 1, len(nodes)):
        return False
    if _array(classes, read).shape != (1,) or nodes.ndim != 1 or not len(nodes):
        return False
    children, feature = np.stack([nodes["left_child"], nodes["right_child"]]), nodes["feature"]
    inside = (children > np.arange(len(nodes))) & (children < len(nodes))
    branch = inside.all(axis=0) & (feature >= 0) & (feature < width)
    return bool((branch | (nodes["left_child"] == LEAF)).all())


def _whole(node: Node) -> int:
    """Read a number that is written into the outline."""
    value = json.loads(node["content"])
    if node["__loader__"] != "JsonNode" or type(value) is not int:
        raise ValueError("a tree of other than whole numbers")
    return value


def _array(node: Node, read: Read) -> np.ndarray:
    if node["__loader__"] != "NdArrayNode" or node["type"] != "numpy":
        raise ValueError("a tree without arrays")
    return np.load(io.BytesIO(read(node["file"])), allow_pickle=False)
