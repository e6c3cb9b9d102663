"""What a run deploys: recipe, weights, head and classes as JSON and arrays; nothing in it can run when it is read."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load, save

from classify.calibrate import softmax
from classify.folders import whole_folder
from classify.scoring import SCORERS, SHAPES, Arrays, nearness, unit
from extract.errors import BundleError, FitError
from extract.spec import Recipe
from extract.store.index import versions

FORMAT, FORMAT_VERSION = "offshelf-bundle", 2
PACKAGES = ("offshelf", "numpy", "scipy", "scikit-learn", "torch", "torchvision")
"""What a fit's numbers depend on."""

FILES = ("head.safetensors", "recipe.json", "weights.safetensors")
MAX_JSON_BYTES = 32 << 20
MAX_BYTES = {"head.safetensors": 8 << 30, "recipe.json": MAX_JSON_BYTES}
PARITY = 1e-6
TIE = 1e-6
PARITY_ROWS = 1000


@dataclass(frozen=True)
class Bundle:
    """A fitted head with its recipe. `kind` names its formula; `temperature` divides scores before the softmax.

    `layer` is a tap in the centre view, which is all that a prediction computes, whatever else the recipe has.
    """

    recipe: Recipe
    layer: str
    head: str
    kind: str
    params: dict[str, Any]
    classes: list[str]
    temperature: float
    arrays: Arrays
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    folder: Path | None = None

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Score each class, in plain numpy: features X (n, D) of `layer` -> (n, C) float64."""
        return SCORERS[self.kind](self.arrays, np.asarray(X, dtype=np.float64))

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities: X (n, D) -> (n, C)."""
        return softmax(self.scores(X) / self.temperature)

    @property
    def width(self) -> int:
        """Columns of the features that the head takes."""
        [width] = {self.arrays[name].shape[axes.index("D")] for name, axes in SHAPES[self.kind].items() if "D" in axes}
        return width

    @property
    def weights_path(self) -> Path:
        """The network's weights, beside the head."""
        if self.folder is None:
            raise BundleError("the bundle was never written", remedy="write_bundle, then read_bundle")
        return self.folder / "weights.safetensors"


def write_bundle(folder: Path, bundle: Bundle, *, weights: Path, X: np.ndarray, expected: np.ndarray) -> None:
    """Write a bundle whole or not at all, once its numpy scores of X (n, D) are those `expected` (n, C) of sklearn."""
    _check_parity(bundle, X, expected)
    if folder.exists() and any(folder.iterdir()) and not holds_bundle(folder):
        raise BundleError("not a bundle, or not only that", where=str(folder), remedy="Name another folder")
    with whole_folder(folder) as temporary:
        (temporary / "head.safetensors").write_bytes(
            save({k: np.array(v, order="C") for k, v in bundle.arrays.items()})
        )
        (temporary / "recipe.json").write_text(bundle.recipe.to_json(), encoding="utf-8")
        _link_or_copy(weights, temporary / "weights.safetensors")
        files = {name: _digest(temporary / name) for name in FILES}
        manifest = json.dumps(_manifest(bundle, files), indent=2, allow_nan=False)
        (temporary / "bundle.json").write_text(manifest, encoding="utf-8")


def holds_bundle(folder: Path) -> bool:
    """Tell whether a folder holds a bundle and nothing else, so that no one misses it when it is replaced."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() and not folder.is_symlink() else set()
    return "bundle.json" in names and names <= {"bundle.json", *FILES}


def _manifest(bundle: Bundle, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kept = ("layer", "head", "kind", "params", "classes", "temperature")
    said = {name: getattr(bundle, name) for name in kept}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "features_key": bundle.recipe.key}
    manifest = {**head, **said, "files": files, "created": created, "versions": versions(PACKAGES)}
    return {**manifest, "sha256": manifest_digest(manifest)}


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest as JSON with sorted keys, without its own field `sha256`, in hex."""
    said = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _check_parity(bundle: Bundle, X: np.ndarray, expected: np.ndarray) -> None:
    """Compare with sklearn on rows spread over X; rows whose k-th neighbour is tied may go either way."""
    at = np.unique(np.linspace(0, len(X) - 1, min(len(X), PARITY_ROWS)).astype(int))
    if bundle.kind == "knn":
        at = at[_untied(bundle.arrays, np.asarray(X[at], dtype=np.float64))]
    gap = float(np.abs(bundle.scores(X[at]) - expected[at]).max(initial=0))
    if not gap <= PARITY * max(1.0, float(np.abs(expected).max())):
        raise FitError(
            f"the bundle's scores differ from the fitted {bundle.head}'s by {gap:.2g}", remedy="Report this bug"
        )


def _untied(arrays: Arrays, X: np.ndarray) -> np.ndarray:
    rows, k = unit(arrays["rows"].astype(np.float64)), int(arrays["k"])
    near = np.sort(nearness(rows, X), axis=1)[:, ::-1]
    return near[:, k - 1] - near[:, k] > TIE if k < near.shape[1] else np.ones(len(X), dtype=bool)


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle, once its format, digests and key are what they should be; anything else is a BundleError."""
    said = _read_manifest(folder)
    data = {name: _verified(folder / name, said["files"][name]) for name in MAX_BYTES}
    if _digest(folder / "weights.safetensors") != said["files"]["weights.safetensors"]:
        raise _changed(folder / "weights.safetensors")
    try:
        recipe, arrays = Recipe.from_json(data["recipe.json"].decode()), load(data["head.safetensors"])
        bundle = Bundle(recipe=recipe, arrays=arrays, folder=folder, **{name: said[name] for name in MANIFEST_FIELDS})
        _check_bundle(bundle, said["features_key"])
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(f"not a bundle of ours: {error}", where=str(folder), remedy="Run fit again") from error
    if said.get("sha256") != manifest_digest(said):
        raise _changed(folder / "bundle.json")
    return bundle


MANIFEST_FIELDS = ("layer", "head", "kind", "params", "classes", "temperature", "versions", "created")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "bundle.json"
    try:
        said = json.loads(_read_capped(path, MAX_JSON_BYTES))
        form, version, files = said["format"], said["format_version"], said["files"]
        whole = form == FORMAT and sorted(files) == sorted(FILES)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BundleError(
            f"no bundle here: {error}", where=str(path), remedy="Name the bundle folder of a run"
        ) from error
    if not whole:
        raise BundleError("not a bundle of ours", where=str(path), remedy="Name the bundle folder of a run")
    if version != FORMAT_VERSION:
        raise BundleError(f"bundle format {version!r}; this version reads {FORMAT_VERSION}", where=str(path))
    return said


def _check_bundle(bundle: Bundle, key: str) -> None:
    """Raise ValueError where the parts of a bundle do not fit each other."""
    if bundle.recipe.key != key:
        raise ValueError("the recipe is not the one that was fitted")
    if bundle.layer not in [tap.name for tap in bundle.recipe.taps if not tap.is_map]:
        raise ValueError(f"the recipe has no layer {bundle.layer!r} of rows")
    if not all(isinstance(name, str) for name in bundle.classes) or not 0 < bundle.temperature < float("inf"):
        raise ValueError("classes or temperature are no names and no number")
    sizes = {"C": len(bundle.classes)}
    for name, axes in SHAPES[bundle.kind].items():
        array = bundle.arrays[name]
        if array.ndim != len(axes) or any(sizes.setdefault(a, n) != n for a, n in zip(axes, array.shape, strict=True)):
            raise ValueError(f"the array {name!r} has the shape {array.shape}")
        if array.dtype.kind not in "fi" or not np.isfinite(array).all():
            raise ValueError(f"the array {name!r} holds what is no number")
    if bundle.kind == "knn" and not _knn_indexes(bundle.arrays, len(bundle.classes)):
        raise ValueError("neighbours beyond the rows or classes")


def _knn_indexes(arrays: Arrays, n_classes: int) -> bool:
    codes = arrays["codes"]
    return (
        codes.dtype.kind == "i"
        and sorted(set(codes.tolist())) == list(range(n_classes))
        and 1 <= int(arrays["k"]) <= len(codes)
    )


def _verified(path: Path, said: dict[str, Any]) -> bytes:
    try:
        data = _read_capped(path, MAX_BYTES[path.name])
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read: {error}", where=str(path), remedy="Run fit again") from error
    if {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} != said:
        raise _changed(path)
    return data


def _read_capped(path: Path, limit: int) -> bytes:
    if (size := path.stat().st_size) > limit:
        raise ValueError(f"{size} bytes are more than {limit}")
    return path.read_bytes()


def _changed(path: Path) -> BundleError:
    return BundleError("its content is not what was written", where=str(path), remedy="Run fit again")


def _digest(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
    except OSError as error:
        raise BundleError(f"cannot read: {error}", where=str(path), remedy="Run fit again") from error


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            said = f"cannot copy the weights ({error.strerror or error})"
            raise BundleError(said, where=str(source), remedy="Make room, or extract again") from error
