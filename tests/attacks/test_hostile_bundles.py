import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from classify import bundle as bundles
from classify.fit import FitSpec, fit
from classify.predict import PredictSpec, predict
from extract.errors import BundleError, OffshelfError
from extract.progress import Silent
from extract.run import extract
from tests.tiny import tiny_folder, tiny_spec


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("bundle")
    data = tiny_folder(work / "data", per_class=6)
    done = extract(tiny_spec(data, work / "cache", taps=("penultimate",)))
    fit(FitSpec(done["features"], cache=work / "cache", out=work / "run", cv=2, jobs=1))
    return work / "run" / "bundle"


@pytest.fixture
def folder(fitted, tmp_path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "bundle"))


def put(folder: Path, name: str, data: bytes, **changes: object) -> None:
    """Replace a file of a bundle as its author could: the manifest's digest goes with it."""
    (folder / name).write_bytes(data)
    path = folder / "bundle.json"
    said = json.loads(path.read_text()) | changes
    said["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(said | {"sha256": bundles.manifest_digest(said)}))


def put_recipe(folder: Path, change: Callable[[dict], None]) -> None:
    value = json.loads((folder / "recipe.json").read_text())
    change(value)
    text = json.dumps(value, sort_keys=True)  # as the key of a recipe is made
    put(folder, "recipe.json", text.encode(), features_key=hashlib.sha256(text.encode()).hexdigest())


def refused(folder: Path) -> str:
    with pytest.raises(OffshelfError) as caught:
        predict(PredictSpec(str(folder), device="cpu"), (), Silent())
    assert isinstance(caught.value, BundleError), caught.value
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.remedy
    return str(caught.value)


class Canary:
    """Creates a folder when it is unpickled by anything that runs what a pickle says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_the_bundle_as_it_was_is_read(folder):
    assert list(predict(PredictSpec(str(folder), device="cpu"), (), Silent())) == []


@pytest.mark.parametrize("name", ["head.safetensors", "recipe.json"])
def test_a_pickle_in_the_place_of_a_file_is_never_run(folder, tmp_path, name):
    put(folder, name, pickle.dumps(Canary(tmp_path / "canary")))
    assert "not a bundle of ours" in refused(folder)
    assert not (tmp_path / "canary").exists()


def test_a_head_of_another_width_is_refused(folder):
    arrays = load_file(folder / "head.safetensors")
    narrow = {name: np.ascontiguousarray(a[..., :-1]) if name != "intercept" else a for name, a in arrays.items()}
    put(folder, "head.safetensors", save(narrow))
    assert "takes 127 numbers, and 'penultimate' gives 128" in refused(folder)


def test_json_deeper_than_the_stack_is_refused(folder):
    put(folder, "recipe.json", b"[" * 100_000)
    assert "not a bundle of ours" in refused(folder)


def test_a_recipe_beyond_the_cap_is_refused(folder, monkeypatch):
    monkeypatch.setitem(bundles.MAX_BYTES, "recipe.json", 10)
    assert "more than 10" in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": ["no.such.node"]},
        {"nodes": []},
        {"nodes": [["avgpool"]]},
        {"model": 3},
        {"precision": "fp8"},
        {"store": "object"},
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_refused(folder, change):
    put_recipe(folder, lambda value: value.update(change))
    refused(folder)
