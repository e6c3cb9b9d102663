import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from tiny_features import blobs

from classify.estimators import load_model, store_model
from extract.errors import BundleError

pytest.importorskip("skops", reason='needs the extra: pip install "offshelf[any-head]"')

Y = np.arange(60) % 3
DATA = store_model(RandomForestClassifier(3, random_state=0).fit(blobs(Y, 5).astype(np.float64), Y), 5)
Outline = dict[str, Any]


def parts(value: Any, loader: str) -> list[Outline]:
    """All nodes of one loader, in the order of the file."""
    if isinstance(value, dict):
        own = [value] if value.get("__loader__") == loader else []
        return own + [each for child in value.values() for each in parts(child, loader)]
    return [each for child in value for each in parts(child, loader)] if isinstance(value, list) else []


def changed(
    outline: Callable[[Outline], None] = lambda _: None, nodes: Callable[[np.ndarray], object] | None = None
) -> bytes:
    """Return the stored forest with another outline, or with other nodes in its last tree."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(DATA)) as old, zipfile.ZipFile(out, "w") as new:
        said = json.loads(old.read("schema.json"))
        last = parts(said, "TreeNode")[-1]["content"]["content"]["nodes"]["file"]
        outline(said)
        for name in old.namelist():
            data = json.dumps(said).encode() if name == "schema.json" else old.read(name)
            if name == last and nodes:
                array = np.load(io.BytesIO(data))
                found = nodes(array)
                file = io.BytesIO()
                np.save(file, found if isinstance(found, np.ndarray) else array)
                data = file.getvalue()
            new.writestr(name, data)
    return out.getvalue()


def refused(data: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        load_model(data, 5, 3, "here")
    return str(caught.value)


def test_the_forest_as_it_was_is_read():
    assert len(load_model(changed(), 5, 3, "here").estimators_) == 3


def put(field: str, value: int) -> Callable[[np.ndarray], None]:
    """Change the root of a tree, which is no leaf."""

    def change(nodes: np.ndarray) -> None:
        assert nodes["left_child"][0] != -1
        nodes[field][0] = value

    return change


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("left_child", 10**9),
        ("right_child", 10**9),
        ("right_child", -5),
        ("left_child", -2),
        ("left_child", 0),
        ("feature", 5),
        ("feature", -2),
        ("feature", 10**9),
    ],
)
def test_a_branch_to_nowhere_or_back_is_refused(field, value):
    assert "branches to nowhere" in refused(changed(nodes=put(field, value)))


def test_nodes_of_another_number_or_form_are_refused():
    assert "branches to nowhere" in refused(changed(nodes=lambda nodes: nodes[:-1]))
    assert "branches to nowhere" in refused(changed(nodes=lambda nodes: nodes[:0]))
    assert "not a head of ours" in refused(changed(nodes=lambda nodes: np.zeros(3)))


def args(at: int, content: str) -> Callable[[Outline], None]:
    def change(outline: Outline) -> None:
        tree = parts(outline, "TreeNode")[0]
        tree["__reduce__"]["args"]["content"][at] |= {"content": content, "__id__": 1}

    return change


@pytest.mark.parametrize(("at", "content"), [(0, "100"), (2, "100000"), (2, "-1"), (2, "true"), (0, '"5"'), (0, "1e9")])
def test_a_tree_that_says_otherwise_than_its_rows_is_refused(at, content):
    assert "tree" in refused(changed(args(at, content)))


def narrow(outline: Outline) -> None:
    parts(outline, "ObjectNode")[0]["content"]["content"]["n_features_in_"] |= {"content": "2", "__id__": 1}


def silent(outline: Outline) -> None:
    del parts(outline, "ObjectNode")[0]["content"]["content"]["n_features_in_"]


def twice(outline: Outline) -> None:
    """Have skops take the first tree's nodes for the number of another array."""
    one, two = (tree["content"]["content"] for tree in parts(outline, "TreeNode")[:2])
    two["values"]["__id__"] = one["nodes"]["__id__"]


@pytest.mark.parametrize(
    ("change", "said"),
    [(narrow, "other than 5 columns"), (silent, "n_features_in_"), (twice, "two parts of one number")],
)
def test_a_forest_that_would_hand_its_trees_other_rows_is_refused(change, said):
    assert said in refused(changed(change))


def test_rows_of_another_width_are_refused():
    with pytest.raises(BundleError, match="other than 4 columns"):
        load_model(DATA, 4, 3, "here")
