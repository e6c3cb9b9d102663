"""What a run deploys: recipe, weights, head, classes and thresholds; JSON and arrays, of which nothing can run."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load, save
from scipy.special import expit

from classify import bundle_checks as checks
from classify import manifest
from classify.calibrate import softmax
from classify.conformal import Abstain, Conformal
from classify.estimators import load_model, store_model
from classify.folders import whole_folder
from classify.manifest import AGAIN, FILES, HEAD, MODEL, OPEN_SET, RECIPE, WEIGHTS, holds_bundle
from classify.openset import OpenSet
from classify.parity import check_parity, differs, spread, untied
from classify.scoring import ROWWISE, SCORERS, SHAPES, Arrays, join, model_scores, prepare, prepared_width
from extract.errors import BundleError
from extract.spec import Recipe
from extract.store.index import versions

__all__ = ["FILES", "PACKAGES", "Answers", "Blocks", "Bundle", "holds_bundle", "read_bundle", "write_bundle"]

PACKAGES = ("offshelf", "numpy", "scipy", "scikit-learn", "torch", "torchvision")
"""What a fit's numbers depend on."""

PROOF_ROWS = 8
"""Rows whose scores an imported head must give again when it is read: another scikit-learn may make others of it."""
SAID = ("head", "params", "classes", "temperature", "transform", "task", "kind")
SHARES = {"single": softmax, "multi": expit}
"""By task, scores (n, C) -> probabilities: of one label an image, or of each class by itself."""

Blocks = Mapping[str, np.ndarray]
"""Features by the name of their tap: (n, D_i) each."""


@dataclass(frozen=True)
class Answers:
    """Of n rows the probabilities (n, C), and, where the bundle has thresholds for them, what they let one say.

    `sets` (n, C) bool are the conformal sets; `novelty` (n,) is the distance to what was seen over its threshold, above
    1 for what is unlike it.
    """

    probabilities: np.ndarray
    sets: np.ndarray | None
    novelty: np.ndarray | None


@dataclass(frozen=True)
class Bundle:
    """A fitted head with its recipe. `kind` names its formula; `temperature` divides scores before they are shares.

    `layers` are taps in the centre view, which is all that a prediction computes, whatever else the recipe has; the
    rows of several are joined. `transform` is applied to the joined rows, what was fitted of it being in `arrays`. The
    `task` "single" gives one label an image; "multi" gives every class whose probability reaches its one of
    `label_thresholds` (C,). `model` is the estimator of the kind "imported".
    """

    recipe: Recipe
    layers: tuple[str, ...]
    transform: str
    head: str
    kind: str
    params: dict[str, Any]
    classes: list[str]
    temperature: float
    arrays: Arrays
    task: str = "single"
    label_thresholds: tuple[float, ...] = ()
    conformal: Conformal | None = None
    abstain: Abstain | None = None
    open_set: OpenSet | None = None
    model: Any = None
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    folder: Path | None = None

    def scores(self, blocks: Blocks) -> np.ndarray:
        """Score each class, in plain numpy: features (n, D_i) of each of `layers` -> (n, C) float64."""
        return self.score(self.joined(blocks))

    def probabilities(self, blocks: Blocks) -> np.ndarray:
        """Return calibrated probabilities: features of each layer -> (n, C)."""
        return SHARES[self.task](self.scores(blocks) / self.temperature)

    def answer(self, blocks: Blocks) -> Answers:
        """Return all that can be said of rows: features (n, D_i) of each layer -> probabilities, sets, novelty."""
        X = self.joined(blocks)
        shares = SHARES[self.task](self.score(X) / self.temperature)
        sets = self.conformal.sets(shares) if self.conformal else None
        return Answers(shares, sets, self.open_set.novelty(X) if self.open_set else None)

    def joined(self, blocks: Blocks) -> np.ndarray:
        """Lay the rows of the layers side by side: (n, D_i) each -> (n, D) float64, before the transform."""
        return join([np.asarray(blocks[layer], dtype=np.float64) for layer in self.layers])

    def score(self, X: np.ndarray) -> np.ndarray:
        """Score joined rows: (n, D) -> (n, C)."""
        if not len(X):
            return np.empty((0, len(self.classes)))  # scikit-learn refuses to score no rows
        Z = ROWWISE[self.transform](X)
        if self.kind == "imported":
            return model_scores(self.model, prepare(self.arrays, Z))
        return SCORERS[self.kind](self.arrays, Z)

    @property
    def width(self) -> int:
        """Columns of the joined features that the head takes."""
        [width] = {self.arrays[name].shape[axes.index("D")] for name, axes in SHAPES[self.kind].items() if "D" in axes}
        return width

    @property
    def weights_path(self) -> Path:
        """The network's weights, beside the head."""
        if self.folder is None:
            raise BundleError("the bundle was never written", remedy="write_bundle, then read_bundle")
        return self.folder / WEIGHTS


def write_bundle(folder: Path, bundle: Bundle, *, weights: Path, blocks: Blocks, expected: np.ndarray) -> None:
    """Write a bundle whole or not at all, once its scores of `blocks` (n, D_i) are those `expected` (n, C) of sklearn.

    A thousand rows are compared at most; the features of more need not be read.
    """
    bundle = _proven(bundle, blocks, expected)
    if folder.exists() and any(folder.iterdir()) and not holds_bundle(folder):
        raise BundleError("not a bundle, or not only that", where=str(folder), remedy="Name another folder")
    with whole_folder(folder) as temporary:
        for name, data in _contents(bundle).items():
            (temporary / name).write_bytes(data)
        _link_or_copy(weights, temporary / WEIGHTS)
        manifest.write_manifest(temporary, _said(bundle))


def _proven(bundle: Bundle, blocks: Blocks, expected: np.ndarray) -> Bundle:
    """Compare scores with sklearn's; an imported head gets rows and scores to be compared when it is read."""
    at = spread(len(expected))
    X, expected = bundle.joined({layer: blocks[layer][at] for layer in bundle.layers}), expected[at]
    if bundle.kind == "knn":
        sure = untied(bundle.arrays, ROWWISE[bundle.transform](X))
        X, expected = X[sure], expected[sure]
    check_parity(bundle.score(X), expected, bundle.head)
    if bundle.kind != "imported":
        return bundle
    proof = {"proof_rows": X[:PROOF_ROWS], "proof_scores": expected[:PROOF_ROWS].astype(np.float64)}
    return replace(bundle, arrays={**bundle.arrays, **proof})


def _contents(bundle: Bundle) -> dict[str, bytes]:
    """Return the files of a bundle that are written from memory."""
    files = {HEAD: _packed(bundle.arrays), RECIPE: bundle.recipe.to_json().encode()}
    if bundle.open_set:
        files[OPEN_SET] = _packed({"rows": bundle.open_set.rows})
    if bundle.kind == "imported":
        files[MODEL] = store_model(bundle.model, prepared_width(bundle.arrays))
    return files


def _packed(arrays: Arrays) -> bytes:
    return save({name: np.array(array, order="C") for name, array in arrays.items()})


def _said(bundle: Bundle) -> dict[str, Any]:
    thresholds = {
        "conformal": asdict(bundle.conformal) if bundle.conformal else None,
        "abstain": asdict(bundle.abstain) if bundle.abstain else None,
        "open_set": bundle.open_set.as_dict() if bundle.open_set else None,
        "labels": list(bundle.label_thresholds) if bundle.task == "multi" else None,
    }
    said = {"features_key": bundle.recipe.key, "layers": list(bundle.layers), "thresholds": thresholds}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        **said,
        **{name: getattr(bundle, name) for name in SAID},
        "created": created,
        "versions": versions(PACKAGES),
    }


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle, once its format, digests and key are what they should be; anything else is a BundleError."""
    said = manifest.read_manifest(folder)
    data = manifest.read_files(folder, said["files"])
    try:
        bundle = _bundle(folder, manifest.told_as_now(said), data)
    except WRONG as error:
        raise BundleError(f"not a bundle of ours: {error}", where=str(folder), remedy=AGAIN) from error
    if said.get("sha256") != manifest.manifest_digest(said):
        raise manifest.changed(folder / manifest.MANIFEST)
    return bundle


WRONG = (
    safetensors.SafetensorError,
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError),
)
"""What parts raise that are not of a bundle."""


def _bundle(folder: Path, said: dict[str, Any], data: dict[str, bytes]) -> Bundle:
    """Put a bundle together; raises ValueError and its kin where the parts do not fit each other."""
    recipe = Recipe.from_json(data[RECIPE].decode())
    checks.check_said(said, recipe)
    arrays, n_classes, thresholds = load(data[HEAD]), len(said["classes"]), said["thresholds"]
    width = checks.check_arrays(said["kind"], arrays, n_classes)
    reference = load(data[OPEN_SET]) if OPEN_SET in data else {}
    if (said["kind"] == "imported") != (MODEL in data):
        raise ValueError("a model where there is to be none, or none")
    bundle = Bundle(
        recipe=recipe,
        layers=tuple(said["layers"]),
        arrays=arrays,
        label_thresholds=checks.read_label_thresholds(thresholds.get("labels"), said["task"], n_classes),
        conformal=checks.read_conformal(thresholds.get("conformal"), n_classes),
        abstain=checks.read_abstain(thresholds.get("abstain")),
        open_set=checks.read_open_set(thresholds.get("open_set"), reference, width),
        model=load_model(data[MODEL], prepared_width(arrays), n_classes, str(folder / MODEL))
        if MODEL in data
        else None,
        folder=folder,
        **{name: said[name] for name in (*SAID, "created", "versions")},
    )
    _check_proof(bundle)
    return bundle


def _check_proof(bundle: Bundle) -> None:
    """Refuse an imported head that scores otherwise than when it was fitted."""
    if bundle.kind != "imported":
        return
    then, now = (said.get("scikit-learn") for said in (bundle.versions, versions(("scikit-learn",))))
    where = f"(scikit-learn {then} then, {now} now)"
    try:
        gap = differs(bundle.score(bundle.arrays["proof_rows"]), bundle.arrays["proof_scores"])
    except Exception as error:
        raise ValueError(f"{bundle.head} does not score {where}: {error}") from error
    if gap:
        raise ValueError(f"{bundle.head} scores otherwise than when it was fitted {where}")


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            said = f"cannot copy the weights ({error.strerror or error})"
            raise BundleError(said, where=str(source), remedy="Make room, or extract again") from error
