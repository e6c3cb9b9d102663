"""A bundle on disk: recipe, weights, head, classes and thresholds; JSON and arrays, of which nothing can run."""

import os
import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load, save

from classify import bundle_checks as checks
from classify import manifest
from classify.deployed import Answers, Blocks, Bundle
from classify.estimators import load_model, store_model
from classify.examples import Examples, pack_examples, read_examples
from classify.folders import whole_folder
from classify.manifest import AGAIN, EXAMPLES, FILES, HEAD, MODEL, OPEN_SET, RECIPE, WEIGHTS, holds_bundle
from classify.parity import check_parity, differs, spread, untied
from classify.scoring import ROWWISE, Arrays, prepared_width
from extract.errors import BundleError
from extract.recipe import Recipe
from extract.store.folders import GOLDEN
from extract.store.golden import read_golden
from extract.store.index import versions

__all__ = ["FILES", "PACKAGES", "Answers", "Blocks", "Bundle", "holds_bundle", "read_bundle", "write_bundle"]

PACKAGES = ("offshelf", "numpy", "scipy", "scikit-learn", "torch", "torchvision")
"""What a fit's numbers depend on."""

PROOF_ROWS = 8
"""Rows whose scores an imported head must give again when it is read: another scikit-learn may make others of it."""
SAID = ("head", "params", "classes", "temperature", "transform", "task", "kind")


def write_bundle(folder: Path, bundle: Bundle, *, weights: Path, blocks: Blocks, expected: np.ndarray) -> None:
    """Write a bundle whole or not at all, once its scores of `blocks` (n, D_i) are those `expected` (n, C) of sklearn.

    A thousand rows are compared at most; the features of more need not be read. What lies beside the `weights` of the
    golden images goes into the bundle as its examples.
    """
    bundle = _with_examples(_proven(bundle, blocks, expected), weights.with_name(GOLDEN))
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


def _with_examples(bundle: Bundle, golden: Path) -> Bundle:
    """Add the features of the golden images with what is said of them, where they are known and it is sure."""
    if not golden.is_file():
        return bundle
    rows, _ = read_golden(golden, bundle.recipe.key, bundle.layers)
    sure = all(np.isfinite(values).all() for values in rows.values())
    if sure and bundle.kind == "knn":
        sure = untied(bundle.arrays, ROWWISE[bundle.transform](bundle.joined(rows))).all()
    return replace(bundle, examples=Examples(rows, bundle.probabilities(rows))) if sure else bundle


def _contents(bundle: Bundle) -> dict[str, bytes]:
    """Return the files of a bundle that are written from memory."""
    files = {HEAD: _packed(bundle.arrays), RECIPE: bundle.recipe.to_json().encode()}
    if bundle.examples:
        files[EXAMPLES] = _packed(pack_examples(bundle.examples))
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
        examples=read_examples(load(data[EXAMPLES]), said["layers"], width, n_classes) if EXAMPLES in data else None,
        model=load_model(data[MODEL], prepared_width(arrays), n_classes, str(folder / MODEL))
        if MODEL in data
        else None,
        folder=folder,
        digest=str(said.get("sha256")),
        **{name: said[name] for name in (*SAID, "created", "versions")},
    )
    _check_proof(bundle)
    _check_examples(bundle)
    return bundle


def _check_examples(bundle: Bundle) -> None:
    """Refuse a head that says something else of its examples than when it was fitted."""
    if bundle.examples and differs(bundle.probabilities(bundle.examples.rows), bundle.examples.probabilities):
        raise ValueError(f"{bundle.head} answers otherwise for its examples than when it was fitted")


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
        os.link(source.resolve(), target)  # a link to the file itself: a bundle is whole in its folder
    except OSError:  # another file system, or one without links
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            said = f"cannot copy the weights ({error.strerror or error})"
            raise BundleError(said, where=str(source), remedy="Make room, or extract again") from error
