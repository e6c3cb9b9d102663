"""Copies of a feature set for other programs: one plain HDF5 file, or npy files with a CSV.

A copy appears only when it is whole. Every row is proven as it is read, and what is held in memory is a block of rows.
"""

import codecs
import csv
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from extract.errors import OptionError, StoreError, unknown
from extract.progress import Progress, Silent
from extract.recipe import Recipe, view_of
from extract.record import Status
from extract.store import files
from extract.store.disk import Disk
from extract.store.folders import open_features
from extract.store.reader import RECIPE, FeatureSet
from extract.store.texts import storable, text_array

BLOCK_ROWS, BLOCK_BYTES = 4096, 64 << 20
ROWS = "rows.csv"
HDF5 = b"\x89HDF\r\n\x1a\n"
COLUMNS = ("row", "id", "label", "split", "group", "status", "error", "sha256")


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """One copy as the user asked for it: of which features, where to, of which form (see FORMS).

    `layers` are taps, or views of taps as in `layer4@1`; all that is stored for none.
    """

    features: str
    out: Path
    form: str = "h5"
    layers: tuple[str, ...] = ()
    overwrite: bool = False
    cache: Path = Path("cache")

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            unknown("format", self.form, FORMS, OptionError)


def export(spec: ExportSpec, progress: Progress | None = None) -> dict[str, Any]:
    """Copy features with all that the index says of their images; return the summary that `--json` prints.

    Raises StoreError where a row is not what it was, where there is no room, or where `out` is not to be replaced.
    """
    progress = progress or Silent()
    with open_features(spec.features, spec.cache) as features:
        layers = _layers(features, spec.layers)
        _check_out(spec)
        progress.start("export", len(features) * len(layers))
        with _whole(spec) as temporary:
            FORMS[spec.form](temporary, features, layers, progress)
    return {
        "features": features.name,
        "path": str(spec.out),
        "format": spec.form,
        "layers": layers,
        "rows": len(features),
        "bytes": files.bytes_in(spec.out),
    }


def _layers(features: FeatureSet, wanted: Sequence[str]) -> list[str]:
    """Return the layers that are wanted: view by view, from shallow to deep."""
    for layer in wanted:
        features.check_layer(layer)
    return [layer for layer in features.shapes if layer in wanted or not wanted]


def _check_out(spec: ExportSpec) -> None:
    """Raise StoreError unless the name is free, or `overwrite` and taken by such a copy."""
    out = spec.out
    if not os.path.lexists(out):
        return
    if not spec.overwrite:
        raise StoreError("it exists already", where=str(out), remedy="Take another --output, or --overwrite")
    if not (_is_npy_export(out) if spec.form == "npy" else _is_h5_export(out)):
        raise StoreError("it is no export of this format", where=str(out), remedy="Take another --output")


def _is_npy_export(out: Path) -> bool:
    """Tell whether a folder holds an export, and nothing else."""
    if not out.is_dir() or not (out / RECIPE).is_file() or not (out / ROWS).is_file():
        return False
    try:
        recipe = Recipe.from_json((out / RECIPE).read_text("utf-8"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
    return {path.name for path in out.iterdir()} <= {ROWS, RECIPE, *map(_npy_name, recipe.layers)}


def _npy_name(layer: str) -> str:
    return f"{layer.replace(':', '-')}.npy"


def _is_h5_export(out: Path) -> bool:
    """Tell a plain HDF5 file by its first bytes; the files of a cache begin otherwise."""
    if not out.is_file():
        return False
    with out.open("rb") as file:
        return file.read(len(HDF5)) == HDF5


@contextmanager
def _whole(spec: ExportSpec) -> Iterator[Path]:
    """Give a temporary name beside the final one, which it takes at the end; at an error it goes."""
    temporary, old = (
        spec.out.with_name(f"{files.TEMPORARY}{spec.out.name}-{secrets.token_hex(4)}{end}") for end in ("", ".old")
    )
    try:
        files.make_folder(spec.out.parent)
        yield temporary
        _check_out(spec)
        if spec.out.is_dir():
            spec.out.rename(old)
        temporary.replace(spec.out)
        files.sync_folder(spec.out.parent)
    except OSError as error:
        remedy = "Make room, or take another --output; nothing is left behind"
        raise StoreError(f"cannot be written ({error.strerror})", where=str(spec.out), remedy=remedy) from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.is_file() else shutil.rmtree(temporary, ignore_errors=True)
        if old.is_dir() and not spec.out.exists():
            old.rename(spec.out)
        shutil.rmtree(old, ignore_errors=True)


def _blocks(features: FeatureSet, layer: str, progress: Progress) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the rows of a layer block by block, as they are stored: first row number, and rows (n, *shape)."""
    size = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (4 * math.prod(features.shapes[layer]))))
    for start in range(0, len(features), size):
        rows = np.arange(start, min(start + size, len(features)))
        yield start, features.read(layer, rows).astype(features.recipe.store, copy=False)
        features.close()  # or all of the shards would stay in memory that were mapped
        progress.advance(len(rows))


def _write_h5(path: Path, features: FeatureSet, layers: Sequence[str], progress: Progress) -> None:
    """Write one plain HDF5 file: the datasets and attributes of an index, but every layer as an array of its own."""
    with closing(Disk(path)) as disk:
        with h5py.File(disk, "w") as file:
            _describe(file, features)
            for layer in layers:
                shape = len(features), *features.shapes[layer]
                dataset = file.create_dataset(f"layers/{layer}", shape, features.recipe.store)
                for start, rows in _blocks(features, layer, progress):
                    dataset[start : start + len(rows)] = rows
                    disk.check()
            file["features"] = file[f"layers/{_primary(features.recipe, layers)}"]
        disk.finish()


def _primary(recipe: Recipe, layers: Sequence[str]) -> str:
    """Choose the layer behind `/features`: the primary tap, else the deepest one of the first view that is there."""
    views = range(recipe.views)
    by_rank = [view_of(tap.name, view) for view in views for tap in (recipe.primary, *reversed(recipe.taps))]
    return next(layer for layer in by_rank if layer in layers)


def _describe(file: h5py.File, features: FeatureSet) -> None:
    for name, value in features.attributes.items():
        file.attrs[name] = storable(value)
    for name, values in (("labels", features.labels), ("sha256", features.sha256), ("status", features.status)):
        file.create_dataset(name, data=values)
    for name, texts in (
        ("label_names", features.label_names),
        ("filenames", features.ids),
        ("splits", features.splits),
        ("groups", features.groups),
        ("errors", features.errors),
    ):
        file.create_dataset(name, data=text_array(texts))


def _write_npy(folder: Path, features: FeatureSet, layers: Sequence[str], progress: Progress) -> None:
    """Write a folder: `<layer>.npy` for every layer, what is known of the images as CSV, and the recipe."""
    folder.mkdir()
    for layer in layers:
        shape = len(features), *features.shapes[layer]
        header = {"descr": np.dtype(features.recipe.store).str, "fortran_order": False, "shape": shape}
        with _new(folder / _npy_name(layer)) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _, rows in _blocks(features, layer, progress):
                file.write(rows.data)
    with _new(folder / ROWS) as file:
        table = csv.writer(codecs.getwriter("utf-8")(file, "surrogateescape"))
        table.writerow(COLUMNS)
        table.writerows(_rows(features))
    with _new(folder / RECIPE) as file:
        file.write(features.recipe.to_json().encode() + b"\n")
    files.sync_folder(folder)


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """Open a new file, which is on the disk for good in the end."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _rows(features: FeatureSet) -> Iterator[tuple[object, ...]]:
    """Yield what is known of every image, as in COLUMNS."""
    names = [*features.label_names, ""]  # the last one stands for none
    columns = features.ids, features.labels.tolist(), features.splits, features.groups, features.status.tolist()
    digests = (digest.tobytes().hex() for digest in features.sha256)
    for i, (name, label, split, group, status, error, digest) in enumerate(
        zip(*columns, features.errors, digests, strict=True)
    ):
        yield i, name, names[label], split, group, Status.NAMES[status], error, digest


FORMS: dict[str, Callable[[Path, FeatureSet, Sequence[str], Progress], None]] = {"h5": _write_h5, "npy": _write_npy}
