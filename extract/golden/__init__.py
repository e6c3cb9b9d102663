"""Golden images: a machine that makes something else of a few known files than it should may not write a row.

A key lists what changes a feature, but not all that can: a library that decodes or resizes otherwise, a network left in
train mode, a precision that a setting elsewhere changed. So every worker runs the images beside this file down its own
road, before its first shard, and compares twice:

    pixels    of one preset, with those that come along in `pixels.npy`: what decodes and resizes is the same everywhere
    rows      of the plain network, in fp32 and not rounded, with `golden.h5` in the folder of the features, which the
              first worker there wrote: all that follows is the same as when the other rows were computed

and then the rows that come down the road that is about to be taken (lanes, a folded or compiled network, a device that
resizes, the precision of the recipe) with those of the plain network.

The images are known to every cache: to change one, or a pixel of the policy in `images`, raises SCHEMA_VERSION.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from extract.channel import Crew
from extract.errors import DriftError
from extract.forward import Extractor
from extract.images import DECODERS
from extract.lanes import Stream
from extract.loader import Loaded, Loader, Sight
from extract.recipe import Preprocessing, Recipe
from extract.record import Record, Status
from extract.store import files
from extract.store.folders import GOLDEN
from extract.store.golden import KIND, of_another_recipe, read_golden
from extract.store.sealed import Attributes, seal

if TYPE_CHECKING:
    import h5py

HERE = Path(__file__).parent
NAMES = ("exif-orientation.jpg", "sixteen-bits.png", "palette.png", "cmyk.jpg", "alpha.webp")
"""A progressive 4:2:0 JPEG to be turned upright, 16 bits of grey, a transparent colour of a palette, CMYK, alpha."""

RECORDS = tuple(Record(name, str(HERE / name)) for name in NAMES)
PRESET = Preprocessing(50, 45, "bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Of `pixels.npy`. All images shrink to it, so antialiasing shows, and the crop leaves half a pixel to be rounded."""

PIXEL_TOLERANCE = 4
"""Grey levels. Averaging never adds to what a decoder is off, and rounding adds 1: builds of libjpeg may be off by 3.
Mistakes measured on these images: JPEG scaled as it is decoded 19, bicubic 21, half a pixel aside 169, no antialiasing
179. Chroma that is not smoothed is 4, and shows in the rows alone."""

ROW_TOLERANCE = 5e-5
"""Distance to a row over its length, in fp32. Legal changes (threads, batches, memory layout, no oneDNN) measured up to
1.9e-6 on 14 networks, mistakes 1.5e-4 and more; other devices add up in another order, as those changes do."""

PRECISION_TOLERANCE = 0.3
"""The same, of half precision or TF32 to fp32. bf16 measured 0.11 at most (MobileNetV2, pretrained); what overflows is
infinite, and what underflows is off by about 1."""

COARSE = {"float32": ROW_TOLERANCE, "float16": 1e-3}
"""The same, of the fast road to the plain one, by what rows are stored as: float16 rounds by 5e-4 at most."""

SHORT = 1e-3
"""A row shorter than this share of its tap's longest is measured by that: of a row near zero only rounding is left."""


def prove(extractor: Extractor, stream: Stream, folder: Path) -> None:
    """Compare what this worker makes of the golden images with what it should; `folder` is that of the features.

    Raises DriftError where anything differs, and StoreError where `golden.h5` cannot be read or written.
    """
    path = folder / GOLDEN
    rows, first = _proven(extractor, path)
    prove_stream(stream, rows, extractor.recipe)
    if first:
        _keep(rows, path, extractor)


def prove_plain(extractor: Extractor, folder: Path) -> None:
    """Compare what the plain network makes of them alone, for workers elsewhere, who will have `golden.h5` from here.

    Raises as `prove` does.
    """
    rows, first = _proven(extractor, folder / GOLDEN)
    if first:
        _keep(rows, folder / GOLDEN, extractor)


def _proven(extractor: Extractor, path: Path) -> tuple[dict[str, np.ndarray], bool]:
    """Return the rows of the plain network, proven, and whether nobody has written any yet."""
    prove_pixels()
    pixels = load(_plain_sight(extractor.recipe))
    rows, first = extractor.exact(pixels), not path.exists()
    if first:
        _prove_alone(extractor, pixels, rows)
    else:
        _prove_rows(rows, path, extractor)
    return rows, first


def _keep(rows: Mapping[str, np.ndarray], path: Path, extractor: Extractor) -> None:
    files.publish(path, _sealed(rows, extractor))
    _prove_rows(rows, path, extractor)  # another worker may have been faster


def prove_frozen(extractor: Extractor) -> None:
    """Raise DriftError for a network that is not in eval mode: what makes it fast would only stumble over it."""
    if any(module.training for module in extractor.cut.module.modules()):
        raise DriftError("the network is in train mode", where=extractor.recipe.model, remedy="Call its eval()")


@cache  # what decodes is the same for all extractions of a process
def prove_pixels() -> None:
    """Compare the pixels of `PRESET` with those that come along, once in a process; raises DriftError."""
    differences = np.abs(load(Sight(PRESET)).numpy().astype(np.int16) - expected_pixels()).max((1, 2, 3))
    for name, levels in zip(NAMES, differences.tolist(), strict=True):
        if levels > PIXEL_TOLERANCE:
            said = f"it comes out otherwise: by {levels} of 255 grey levels, and {PIXEL_TOLERANCE} are allowed"
            raise _drifted_pixels(name, said)


def expected_pixels() -> np.ndarray:
    """Read the pixels that come along: (n, 3, 45, 45) uint8, as Pillow 11.0 to 13.0 make them, bit by bit."""
    return np.load(HERE / "pixels.npy", allow_pickle=False)


def load(sight: Sight) -> Tensor:
    """Bring the golden images through a loader: (n, 3, S, S) uint8; raises DriftError for one that is refused."""
    with Loader(sight, workers=1, batch_size=len(RECORDS)) as loader, Crew() as crew:
        batches = list(loader.run(RECORDS, crew))
        crew.check()
        [batch] = batches
        _refuse_failures(batch.loaded)
        return batch.buffer.pixels[: len(batch)]


def _plain_sight(recipe: Recipe) -> Sight:
    """Return how images are looked at on the plain road: in the centre, and on the CPU."""
    scaled = recipe.decoder == DECODERS["scaled"]
    return Sight(recipe.preprocessing, decoder="scaled" if scaled else "exact")


def _refuse_failures(items: Sequence[Loaded]) -> None:
    for name, item in zip(NAMES, items, strict=True):
        if item.failure and item.failure.status != Status.NOT_FINITE:
            raise _drifted_pixels(name, f"it cannot be decoded: {item.failure.reason}")


def _drifted_pixels(name: str, said: str) -> DriftError:
    again = "pip install --force-reinstall pillow"
    remedy = f"Install Pillow anew, as it or a library in it is at fault: {again}. No row was written"
    return DriftError(said, where=f"golden image {name}", remedy=remedy)


def _prove_alone(extractor: Extractor, pixels: Tensor, rows: Mapping[str, np.ndarray]) -> None:
    """Prove that a row depends on its image only, with passes of one image each."""
    passes = [extractor.exact(image[None]) for image in pixels]
    alone = {tap: np.concatenate([one[tap] for one in passes]) for tap in rows}
    for tap, name, distance in _beyond(alone, rows, ROW_TOLERANCE):
        said = f"alone it has another row than among others: layer {tap}, by {distance:.1e} of the row's length"
        remedy = "Take a network that neither draws random numbers nor looks at the rest of a batch. No row was written"
        raise DriftError(said, where=f"golden image {name}", remedy=remedy)


def prove_stream(stream: Stream, rows: Mapping[str, np.ndarray], recipe: Recipe) -> None:
    """Compare the rows that a stream makes with those of the plain network."""
    batches = list(stream.run(RECORDS))
    _refuse_failures([item for batch in batches for item in batch.items])
    coarse = recipe.precision != "fp32" or recipe.tf32
    tolerance = PRECISION_TOLERANCE if coarse else COARSE[recipe.store]
    got = {tap: np.concatenate([batch.rows[tap] for batch in batches]) for tap in rows}
    expected = _storable(rows, recipe.store)
    for tap, name, distance in _beyond(got, expected, tolerance):
        said = f"{recipe.precision} is too coarse for the layer {tap}" if coarse else f"the fast road fails layer {tap}"
        remedy = f"Take {'--precision fp32' if coarse else '--compile none'}. No row was written"
        raise DriftError(
            f"{said}: off by {distance:.1e} of a row's length", where=f"golden image {name}", remedy=remedy
        )


def _storable(rows: Mapping[str, np.ndarray], store: str) -> dict[str, np.ndarray]:
    """Return rows as their stored type holds them; an image with a number that it cannot hold is bad, and all NaN."""
    with np.errstate(over="ignore"):
        stored = {tap: values.astype(store).astype(np.float32) for tap, values in rows.items()}
    bad = np.logical_or.reduce([~np.isfinite(values).reshape(len(values), -1).all(1) for values in stored.values()])
    for values in stored.values():
        values[bad] = np.nan
    return stored


def _prove_rows(rows: Mapping[str, np.ndarray], path: Path, extractor: Extractor) -> None:
    """Compare with the rows that the first worker wrote, which may be these."""
    before, writer = _stored(path, extractor)
    for tap, name, distance in _beyond(rows, before, ROW_TOLERANCE):
        changed = ", ".join(_changes(writer, extractor.writer)) or "nothing that was noted"
        raise DriftError(
            f"golden image {name} has another row than the features here were computed with: layer {tap}, "
            f"by {distance:.1e} of the row's length, and {ROW_TOLERANCE} is allowed. Changed since: {changed}",
            where=str(path),
            remedy="Undo what changed, or extract under another --name. No row was written",
        )


def _beyond(
    rows: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float
) -> Iterator[tuple[str, str, float]]:
    """Yield tap, image and distance of the rows that are further off than `tolerance`."""
    for tap, values in rows.items():
        for name, distance in zip(NAMES, distances(values, expected[tap]).tolist(), strict=True):
            if distance > tolerance:
                yield tap, name, distance


def distances(rows: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Measure how far rows (n, *shape) are from the expected ones, over the length of these: (n,) float64.

    Lengths count as `SHORT` says. What is not finite on both sides does not count (shards note such rows as bad); what
    is on one side is infinitely far.
    """
    rows, expected = (values.reshape(len(values), -1) for values in (rows, expected))
    known = np.isfinite(expected)
    here, there = (np.where(known, values, 0).astype(np.float64) for values in (rows, expected))
    lengths = np.linalg.norm(there, axis=1)
    lengths = np.maximum(lengths, SHORT * lengths.max())
    same = (np.isfinite(rows) == known).all(1)
    apart = np.linalg.norm(np.where(same[:, None], here - there, np.inf), axis=1)
    return np.divide(apart, lengths, out=np.where(apart > 0, np.inf, 0.0), where=lengths > 0)


def _taps(extractor: Extractor) -> list[str]:
    return [tap.name for tap in extractor.recipe.taps]


def _sealed(rows: Mapping[str, np.ndarray], extractor: Extractor) -> bytes:
    def fill(file: "h5py.File") -> None:
        for tap, values in rows.items():
            file.create_dataset(f"layers/{tap}", data=values)

    attributes: Attributes = {"key": extractor.recipe.key, "writer": json.dumps(extractor.writer)}
    return seal(KIND, attributes, fill)[1]


def _stored(path: Path, extractor: Extractor) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the rows of each tap (n, *shape) float32, and what computed them; raises StoreError."""
    rows, writer = read_golden(path, extractor.recipe.key, _taps(extractor))
    if any(values.shape != (len(NAMES), *extractor.shapes[tap]) for tap, values in rows.items()):
        raise of_another_recipe(path)
    return rows, writer


def _changes(before: Mapping[str, Any], now: Mapping[str, str]) -> Iterator[str]:
    """Yield as in `torch 2.11.0 -> 2.12.0`."""
    return (f"{name} {before.get(name)} -> {value}" for name, value in now.items() if before.get(name) != value)
