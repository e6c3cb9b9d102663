"""New images -> answers: the bundle's own network and head, over the same loader and forward pass as `extract`."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from classify.bundle import Bundle, read_bundle
from classify.calibrate import losses
from classify.evaluate import confusion, draw_resamples, evaluate, group_codes, per_class
from extract.engines.local import Work, open_stream
from extract.errors import BundleError, FitError
from extract.forward import Extractor, rebuild_extractor
from extract.lanes import Done
from extract.loader import Loaded
from extract.progress import Progress
from extract.sources import list_images, open_source
from extract.spec import ExtractSpec, Record, Status, available_cores

LISTS = (".csv", ".parquet", ".tar")
"""Endings of what lists images instead of being one."""

IMPOSSIBLE = (LookupError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError)
"""What torch and the cut raise at a recipe that was written by hand."""


@dataclass(frozen=True)
class PredictSpec:
    """What to predict with which run. `abstain_below` is a probability: under it the answer is marked as abstained."""

    run: str
    top: int = 5
    abstain_below: float = 0.0
    device: str = "auto"
    batch_size: int | None = None
    workers: int = field(default_factory=available_cores)


def bundle_folder(run: str) -> Path:
    """Find the bundle of a run: the run's folder, its name under runs/, or the bundle itself."""
    for folder in (Path(run) / "bundle", Path(run), Path("runs") / run / "bundle"):
        if (folder / "bundle.json").is_file():
            return folder
    raise BundleError("no run of that name or path", where=run, remedy="Make one with: pipeline.py fit FEATURES")


def records_of(inputs: tuple[str, ...], root: Path | None = None) -> tuple[Record, ...]:
    """List the images of files and folders, or of one manifest or tar."""
    if len(inputs) == 1 and (inputs[0].endswith(LISTS) or inputs[0].startswith("torchvision:")):
        return open_source(inputs[0], root).records
    return list_images([Path(each) for each in inputs])


def predict(spec: PredictSpec, records: tuple[Record, ...], progress: Progress) -> Iterator[dict[str, Any]]:
    """Yield one answer per record, in order: id, label, probability, abstained, top, status, reason.

    Raises BundleError where the run is no good before the first answer is asked for.
    """
    bundle, extractor = _open_run(spec)

    def answers() -> Iterator[dict[str, Any]]:
        progress.start("predict", len(records))
        for batch, probabilities in _probabilities(spec, bundle, extractor, records, progress):
            for record, item, shares in zip(batch, *probabilities, strict=True):
                yield _answer(record, item, shares, bundle, spec)
            progress.advance(len(batch))

    return answers()


def _open_run(spec: PredictSpec) -> tuple[Bundle, Extractor]:
    bundle = read_bundle(bundle_folder(spec.run))
    where, remedy = str(bundle.folder), "Run fit again"
    try:
        extractor = rebuild_extractor(bundle.recipe, bundle.weights_path, bundle.layer, device=spec.device)
    except IMPOSSIBLE as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise BundleError(f"the recipe cannot be carried out ({said})", where=where, remedy=remedy) from error
    if (shape := extractor.shapes[bundle.layer]) != (bundle.width,):
        said = f"the head takes {bundle.width} numbers, and {bundle.layer!r} gives {' x '.join(map(str, shape))}"
        raise BundleError(said, where=where, remedy=remedy)
    return bundle, replace(extractor, recipe=replace(bundle.recipe, views=1, view_seed=0))


def _probabilities(
    spec: PredictSpec, bundle: Bundle, extractor: Extractor, records: tuple[Record, ...], progress: Progress
) -> Iterator[tuple[tuple[Record, ...], tuple[list[Loaded], np.ndarray]]]:
    """Yield the records of each batch, what was loaded, and the probabilities (n, C), NaN for bad rows."""
    done = 0
    wanted = ExtractSpec("", batch_size=spec.batch_size, workers=spec.workers, compile="none")
    work = Work(records, len(records))
    with (
        open_stream(extractor, wanted, work, note=progress.note) as stream,
        closing(stream.run(records)) as batches,
    ):
        for batch in batches:
            yield records[done : done + len(batch.items)], (batch.items, _shares(bundle, batch))
            done += len(batch.items)


def _shares(bundle: Bundle, batch: Done) -> np.ndarray:
    """Compute the probabilities (n, C) of one batch, NaN for what has no features."""
    shares = np.full((len(batch.items), len(bundle.classes)), np.nan)
    if batch.good.any():
        shares[batch.good] = bundle.probabilities(batch.rows[bundle.layer][batch.good].astype(np.float64))
    return shares


def _answer(record: Record, item: Loaded, shares: np.ndarray, bundle: Bundle, spec: PredictSpec) -> dict[str, Any]:
    if item.failure:
        status, reason = Status.NAMES[item.failure.status], item.failure.reason
        nothing = {"label": None, "probability": None, "abstained": True, "top": []}
        return {"id": record.id, **nothing, "status": status, "reason": reason}
    order = np.argsort(-shares, kind="stable")[: spec.top]
    top = [{"label": bundle.classes[i], "probability": round(float(shares[i]), 6)} for i in order]
    best = float(shares[order[0]])
    return {
        "id": record.id,
        "label": bundle.classes[order[0]],
        "probability": round(best, 6),
        "abstained": best < spec.abstain_below,
        "top": top,
        "status": Status.NAMES[Status.OK],
        "reason": "",
    }


def evaluate_run(spec: PredictSpec, data: str, root: Path | None, progress: Progress) -> dict[str, Any]:
    """Measure a run on labelled images: each metric with its interval, confusion, number of bad rows.

    Where the data have splits, the test split counts, or else the validation one: a run may have seen the others.
    """
    bundle, extractor = _open_run(spec)
    records = _unseen(tuple(record for record in open_source(data, root).records if record.label is not None))
    if not records:
        raise FitError("no labelled images", where=data, remedy="Class folders, or a manifest with a label column")
    progress.start("evaluate", len(records))
    shares, contents = [], []
    for batch, (items, probabilities) in _probabilities(spec, bundle, extractor, records, progress):
        shares.append(probabilities)
        contents += [item.digest for item in items]
        progress.advance(len(batch))
    return _measured(bundle, records, contents, np.concatenate(shares))


def _unseen(records: tuple[Record, ...]) -> tuple[Record, ...]:
    splits = {record.split for record in records}
    wanted = next((split for split in ("test", "val") if split in splits), None)
    return tuple(record for record in records if wanted is None or record.split == wanted)


def _measured(bundle: Bundle, records: tuple[Record, ...], contents: list[bytes], shares: np.ndarray) -> dict[str, Any]:
    good = np.asarray(np.isfinite(shares).all(axis=1))
    at = np.flatnonzero(good).tolist()
    labels = [str(records[i].label) for i in at]
    if not labels:
        raise FitError("not one image could be read", remedy="See the reasons with: pipeline.py predict")
    names = [*bundle.classes, *sorted(set(labels) - set(bundle.classes))]
    y, predicted = np.array([names.index(label) for label in labels]), shares[good].argmax(1)
    groups = group_codes([records[i].group or "" for i in at], [contents[i] for i in at])
    resamples = draw_resamples(len(y), groups, seed=0)
    matrix = confusion(y, predicted, names, len(bundle.classes))
    return {
        "metrics": evaluate(y, predicted, resamples, losses(shares[good], y)),
        "n": len(y),
        "n_bad": int((~good).sum()),
        "unseen_classes": names[len(bundle.classes) :],
        "confusion": matrix,
        "per_class": per_class(matrix),
    }


def csv_row(answer: dict[str, Any]) -> dict[str, Any]:
    """Flatten an answer for CSV: `top` becomes JSON in one cell."""
    return {**answer, "top": json.dumps({each["label"]: each["probability"] for each in answer["top"]})}
