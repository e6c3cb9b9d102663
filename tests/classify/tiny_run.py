"""A run without a fit: the built-in architecture with seeded weights, and a head that was drawn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from classify.bundle import Blocks, Bundle, write_bundle
from classify.scoring import join
from extract.run import extract
from extract.store import FeatureSet
from tests.tiny import features_of, tiny_folder, tiny_spec

LAYERS = ("layer1", "penultimate")
CLASSES = ["cat", "dog", "eel"]


def tiny_features(folder: Path, **known: Any) -> FeatureSet:
    """The features of 12 generated images, in two classes under `folder/data`."""
    data = tiny_folder(folder / "data", per_class=6)
    return features_of(extract(tiny_spec(data, folder / "cache", taps=LAYERS, **known)))


def blocks_of(features: FeatureSet, layers: tuple[str, ...] = LAYERS) -> dict[str, np.ndarray]:
    return {layer: features.read(layer) for layer in layers}


def tiny_bundle(features: FeatureSet, **known: Any) -> Bundle:
    """A linear head on both layers joined, whose answers are neither all alike nor all sure."""
    X = join([rows.astype(np.float64) for rows in blocks_of(features).values()])
    arrays = {
        "mean": X.mean(axis=0),
        "scale": X.std(axis=0) + 1e-3,
        "coef": np.random.default_rng(0).normal(size=(len(CLASSES), X.shape[1])),
        "intercept": np.array([0.1, -0.1, 0.0]),
    }
    given = Bundle(features.recipe, LAYERS, "std", "logistic", "linear", {}, CLASSES, 10.0, arrays)
    return replace(given, **known)


def put_bundle(run: Path, bundle: Bundle, features: FeatureSet, blocks: Blocks | None = None) -> Path:
    """Write the bundle of a run; -> the run's folder."""
    blocks = blocks or blocks_of(features, bundle.layers)
    write_bundle(run / "bundle", bundle, weights=features.weights_path, blocks=blocks, expected=bundle.scores(blocks))
    return run
