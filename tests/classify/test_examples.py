import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tiny_features import tiny_recipe

from classify.bundle import Bundle, read_bundle, write_bundle
from classify.manifest import EXAMPLES
from extract.errors import StoreError
from extract.store.golden import KIND
from extract.store.sealed import seal

RECIPE = tiny_recipe(["layer1", "penultimate"])
LAYERS = ("penultimate", "layer1")


def golden_of(folder: Path, key: str = RECIPE.key, **changes: np.ndarray) -> dict[str, np.ndarray]:
    """Write golden rows of two layers beside weights; `changes` by layer."""
    rng = np.random.default_rng(0)
    rows = {layer: rng.normal(size=(5, d)).astype(np.float32) for layer, d in (("layer1", 3), ("penultimate", 4))}
    rows |= changes

    def fill(file: h5py.File) -> None:
        for layer, values in rows.items():
            file.create_dataset(f"layers/{layer}", data=values)

    (folder / "golden.h5").write_bytes(seal(KIND, {"key": key, "writer": json.dumps({})}, fill)[1])
    return rows


def write(folder: Path, **known: Any) -> Bundle:
    (folder / "weights.safetensors").write_bytes(b"weights")
    rng = np.random.default_rng(1)
    arrays = {"mean": np.zeros(7), "scale": np.ones(7), "coef": rng.normal(size=(2, 7)), "intercept": np.zeros(2)}
    bundle = Bundle(RECIPE, LAYERS, "std", "logistic", "linear", {}, ["cat", "dog"], 0.5, arrays)
    bundle = replace(bundle, **known)
    blocks = {"layer1": rng.normal(size=(9, 3)), "penultimate": rng.normal(size=(9, 4))}
    expected = bundle.scores(blocks)
    write_bundle(folder / "bundle", bundle, weights=folder / "weights.safetensors", blocks=blocks, expected=expected)
    return read_bundle(folder / "bundle")


def test_examples_are_the_golden_rows_that_lie_beside_the_weights(tmp_path):
    rows = golden_of(tmp_path)
    bundle = write(tmp_path)
    assert bundle.examples is not None
    assert set(bundle.examples.rows) == set(LAYERS)
    for layer in LAYERS:
        assert (bundle.examples.rows[layer] == rows[layer]).all()
    assert bundle.examples.probabilities == pytest.approx(bundle.probabilities(rows))
    assert np.ptp(bundle.examples.probabilities[:, 0]) > 0.1


def test_without_golden_rows_there_are_none(tmp_path):
    assert write(tmp_path).examples is None
    assert not (tmp_path / "bundle" / EXAMPLES).exists()


def test_golden_rows_that_are_no_numbers_are_no_examples(tmp_path):
    golden_of(tmp_path, layer1=np.full((5, 3), np.nan, np.float32))
    assert write(tmp_path).examples is None


@pytest.mark.parametrize("level", [True, False])
def test_a_vote_that_is_level_is_no_example(tmp_path, level):
    golden_of(tmp_path)
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(6, 7)).astype(np.float32)
    rows = np.repeat(rows, 2, axis=0) if level else np.concatenate([rows, -rows])
    arrays = {"rows": rows, "codes": np.arange(12) % 2, "k": np.array(3)}
    assert (write(tmp_path, kind="knn", transform="none", arrays=arrays).examples is None) == level


def test_golden_rows_of_other_features_are_refused(tmp_path):
    golden_of(tmp_path, key="0" * 64)
    with pytest.raises(StoreError, match="of another recipe"):
        write(tmp_path)
    assert not (tmp_path / "bundle").exists()
    data = bytearray((tmp_path / "golden.h5").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "golden.h5").write_bytes(data[:-9])
    with pytest.raises(StoreError, match="no row can be proven"):
        write(tmp_path)
