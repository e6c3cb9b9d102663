"""A run on a handful of generated images: features, a head on them, and its bundle."""

import json
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from classify.bundle import Bundle, write_bundle
from classify.manifest import EXAMPLES, manifest_digest
from classify.scoring import two_columns
from extract.run import extract
from extract.store import FeatureSet
from tests.tiny import features_of, tiny_folder, tiny_spec


def make_run(work: Path, per_class: int = 6) -> Path:
    """Write `data`, images of two classes, their features in `cache`, and `run`, which is returned."""
    data = tiny_folder(work / "data", per_class=per_class)
    return learn(features_of(extract(tiny_spec(data, work / "cache", taps=("penultimate",)))), work / "run")


def learn(features: FeatureSet, run: Path) -> Path:
    """Fit the classes of the features and write the bundle of a run."""
    X = features.read("penultimate").astype(np.float64)
    model = LogisticRegression().fit(X, features.labels)
    arrays = {"mean": np.zeros(X.shape[1]), "scale": np.ones(X.shape[1])}
    arrays |= {"coef": two_columns(model.coef_[0]).T, "intercept": two_columns(model.intercept_)[0]}
    names = list(features.label_names)
    bundle = Bundle(features.recipe, ("penultimate",), "none", "logistic", "linear", {}, names, 1.0, arrays)
    expected = two_columns(model.decision_function(X))
    write_bundle(run / "bundle", bundle, weights=features.weights_path, blocks={"penultimate": X}, expected=expected)
    return run


def forget_examples(bundle: Path) -> None:
    """Leave of a bundle what one of the version before had."""
    (bundle / EXAMPLES).unlink()
    said = json.loads((bundle / "bundle.json").read_text()) | {"format_version": 3}
    del said["files"][EXAMPLES]
    (bundle / "bundle.json").write_text(json.dumps(said | {"sha256": manifest_digest(said)}))
