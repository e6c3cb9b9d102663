"""Features for programs: images in, numbers out, and what was computed once stays in the cache.

DATA on disk is extracted as the command `extract` does it. Images given one by one are a feature set of their own, in
which rows are known by the content of their image alone, and which only grows.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from extract.errors import ImageError, OptionError, StoreError, unknown
from extract.forward import Extractor, build_extractor
from extract.given import Given, as_given, contents_of, name_of, record_of
from extract.job import Job, check_room, prepare_folder
from extract.plan import make_plan, opened, stored_contents, stored_shards
from extract.progress import Silent
from extract.recipe import PENULTIMATE, Tap
from extract.record import Failure, Record, Status
from extract.run import compute, extract
from extract.sources import Source
from extract.spec import BackboneSpec, ExtractSpec
from extract.store import FeatureSet, files
from extract.store.index import Entry
from extract.store.lock import held, lock_of
from extract.store.reader import INDEX, KEY_DIGITS, SHARDS

log = logging.getLogger(__name__)

NAME = "by-content"
"""The name of the feature set of all images that were given one by one."""
ORIGIN = "images given in Python"


class Features(NamedTuple):
    """Rows X (n, D) float32, the layers side by side from shallow to deep, and what each image is called."""

    X: np.ndarray
    ids: list[str]


def extract_features(
    images: Any,
    model: str = "resnet18",
    layers: Sequence[str] = (PENULTIMATE,),
    weights: str = "auto",
    cache: str | os.PathLike[str] = "cache",
    errors: str = "raise",
) -> Features:
    """Return the features of images; only what the cache lacks is computed.

    `images` is DATA as for the command `extract`, as one path; or a list of image files, images of Pillow's and RGB
    pixels (H, W, 3) uint8; or an array (n, H, W, 3) uint8. `layers` are taps as in `layer3:gem`. An image without
    features raises ImageError, or with `errors="nan"` has a row of NaN.
    """
    check_errors(errors)
    spec = spec_of(model, layers, weights, cache)
    if isinstance(images, str | os.PathLike):
        X, reasons, ids = _of_data(spec, os.fspath(images))
    else:
        listed = as_given(images)
        ids = [name_of(image, number) for number, image in enumerate(listed)]
        X, reasons = rows_of(listed, build_extractor(spec), spec)
    judge(reasons, ids, errors)
    return Features(X, ids)


def spec_of(
    model: str, layers: Sequence[str], weights: str, cache: str | os.PathLike[str], device: str = "auto"
) -> ExtractSpec:
    """Put the wishes of a program into one spec, which waits for others at work on the same features.

    Raises OptionError for taps that are kept as maps, which are no rows.
    """
    taps = (layers,) if isinstance(layers, str) else tuple(layers)
    if maps := [tap.name for tap in map(Tap.parse, taps) if tap.is_map]:
        raise OptionError(f"{maps[0]!r} gives maps, and not rows", remedy="Take a pool that makes rows, as in :gem")
    backbone = BackboneSpec(model, os.fspath(weights))
    return ExtractSpec("", name=NAME, backbone=backbone, taps=taps, cache=Path(cache), device=device, wait=True)


def check_errors(errors: str) -> None:
    """Raise OptionError unless that is something that can be done about images without features."""
    if errors not in JUDGES:
        unknown("way to treat errors", errors, JUDGES, OptionError)


def judge(reasons: Sequence[str], ids: Sequence[str], errors: str) -> None:
    """Raise ImageError, or warn, where images have no features; a reason for each, "" for those that have."""
    bad = [number for number, reason in enumerate(reasons) if reason]
    if bad:
        said = f"{len(bad)} of {len(reasons)} images have no features: {reasons[bad[0]]}"
        JUDGES[errors](said, ids[bad[0]])


def _raise(said: str, where: str) -> None:
    raise ImageError(said, where=where, remedy="Leave them out, or take errors='nan' for rows of NaN")


JUDGES: Mapping[str, Callable[[str, str], None]] = {
    "raise": _raise,
    "nan": lambda said, where: log.warning("%s: %s", where, said),
}


def _of_data(spec: ExtractSpec, data: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Extract DATA under its own name: -> rows, reasons and ids."""
    taken = ExtractSpec(data, backbone=spec.backbone, taps=spec.taps, cache=spec.cache, device=spec.device, wait=True)
    with FeatureSet(Path(extract(taken)["path"])).check() as features:
        rows = np.arange(len(features))
        return _read(features, rows), features.errors, features.ids


def rows_of(images: Sequence[Given], extractor: Extractor, spec: ExtractSpec) -> tuple[np.ndarray, list[str]]:
    """Return the rows of images, known by content (n, D) float32, and for each why it has none, or ""."""
    contents = contents_of(images, workers=spec.workers)
    folder = spec.cache / NAME / extractor.recipe.key[:KEY_DIGITS]
    job = Job(spec, Source(NAME, ORIGIN, ()), extractor, folder, Silent())
    features = _whole(folder / INDEX)
    wanted = {content: image for content, image in zip(contents, images, strict=True) if isinstance(content, bytes)}
    if lacking := wanted.keys() - _known(features):
        features = _bring(job, {content: image for content, image in wanted.items() if content in lacking})
    X = np.full((len(images), sum(size for (size,) in extractor.shapes.values())), np.nan, np.float32)
    reasons = [each.reason if isinstance(each, Failure) else "" for each in contents]
    if features is not None:
        with features:
            _look_up(features, contents, X, reasons)
    return X, reasons


def _whole(path: Path) -> FeatureSet | None:
    """Open the index, if there is one whose shards are all there."""
    features = opened(path)
    try:
        return features and features.check()
    except StoreError as error:
        log.warning("%s. What is missing is computed again", error)
        return None


def _known(features: FeatureSet | None) -> set[bytes]:
    """Return the contents whose rows need not be computed, good or bad."""
    if features is None:
        return set()
    settled = features.status != Status.KILLED
    return {digest.tobytes() for digest in features.sha256[settled]}


def _bring(job: Job, images: Mapping[bytes, Given]) -> FeatureSet:
    """Compute the rows of images that the cache lacks, and write an index of them and of all that were there."""
    with held(lock_of(job.folder), wait=True, on_wait=log.info), tempfile.TemporaryDirectory() as folder:
        stored, damaged = stored_shards(job.folder / SHARDS, job.extractor.recipe.key, thorough=False)
        there = stored_contents(stored, but_failed=False)
        kept = (_known(opened(job.folder / INDEX)) & set(there)) - images.keys()
        entries = [Entry(Record(content.hex(), ""), content) for content in sorted(kept)]
        entries += [Entry(record_of(image, content, Path(folder)), content) for content, image in images.items()]
        plan = make_plan(entries, there, job.shard_rows)
        check_room(job, plan)
        prepare_folder(job, prove=True)
        receipts, _ = compute(job, plan, stored)
        files.remove([path for path in damaged if path.name not in {receipt.name for receipt in receipts}])
        return FeatureSet(job.folder / INDEX)


def _look_up(features: FeatureSet, contents: Sequence[bytes | Failure], X: np.ndarray, reasons: list[str]) -> None:
    """Fill in the rows of these contents, and why some have none."""
    place = {digest.tobytes(): row for row, digest in enumerate(features.sha256)}
    at = [number for number, content in enumerate(contents) if isinstance(content, bytes)]
    rows = [place[content] for content in contents if isinstance(content, bytes)]
    X[at] = _read(features, np.array(rows, np.int64))
    for number, row in zip(at, rows, strict=True):
        reasons[number] = features.errors[row]


def _read(features: FeatureSet, rows: np.ndarray) -> np.ndarray:
    return np.hstack([features.read(layer, rows) for layer in features.layers])
