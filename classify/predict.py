"""New images -> answers: the bundle's own network and head, over the same loader and forward pass as `extract`."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from classify.assess import assess
from classify.bundle import Answers, Bundle, read_bundle
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


CSV_FIELDS = ("id", "label", "probability", "abstained", "labels", "set", "novelty", "known", "top", "status", "reason")
"""The columns of a table of answers; `labels` is empty where an image has one label."""

NOTHING: dict[str, Any] = {
    "label": None,
    "probability": None,
    "abstained": True,
    "set": None,
    "novelty": None,
    "known": None,
    "top": [],
}
"""What is said of an image without features."""


@dataclass(frozen=True)
class PredictSpec:
    """What to predict with which run. `abstain_below` is a probability: under it the answer is marked as abstained.

    None stands for the run's own threshold, where it was fitted with one.
    """

    run: str
    top: int = 5
    abstain_below: float | None = None
    device: str = "auto"
    batch_size: int | None = None
    workers: int = field(default_factory=available_cores)

    def limit(self, bundle: Bundle) -> float:
        """Return the probability under which to abstain."""
        own = bundle.abstain.threshold if bundle.abstain else 0.0
        return own if self.abstain_below is None else self.abstain_below


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
    """Yield one answer per record, in order: the fields of CSV_FIELDS, `labels` only where an image may have several.

    `set`, `novelty` and `known` are None where the run has no thresholds for them. Raises BundleError where the run is
    no good before the first answer is asked for.
    """
    bundle, extractor = open_run(spec)

    def answers() -> Iterator[dict[str, Any]]:
        progress.start("predict", len(records))
        for batch, items, found in _answered(spec, bundle, extractor, records, progress):
            for at, (record, item) in enumerate(zip(batch, items, strict=True)):
                yield answer_of(record, item, at, found, bundle, spec)
            progress.advance(len(batch))

    return answers()


def open_run(spec: PredictSpec) -> tuple[Bundle, Extractor]:
    """Open the bundle of a run and its network, in the centre view; raises BundleError where it is no good."""
    bundle = read_bundle(bundle_folder(spec.run))
    where, remedy = str(bundle.folder), "Run fit again"
    try:
        extractor = rebuild_extractor(bundle.recipe, bundle.weights_path, bundle.layers, device=spec.device)
    except IMPOSSIBLE as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise BundleError(f"the recipe cannot be carried out ({said})", where=where, remedy=remedy) from error
    shapes = [extractor.shapes[layer] for layer in bundle.layers]
    if any(len(shape) != 1 for shape in shapes) or sum(shape[0] for shape in shapes) != bundle.width:
        given = " + ".join(" x ".join(map(str, shape)) for shape in shapes)
        said = f"the head takes {bundle.width} numbers, and {' + '.join(map(repr, bundle.layers))} gives {given}"
        raise BundleError(said, where=where, remedy=remedy)
    return bundle, replace(extractor, recipe=replace(bundle.recipe, views=1, view_seed=0))


Answered = tuple[tuple[Record, ...], list[Loaded], Answers]
"""The records of a batch, what was loaded of them, and their answers."""


def _answered(
    spec: PredictSpec, bundle: Bundle, extractor: Extractor, records: tuple[Record, ...], progress: Progress
) -> Iterator[Answered]:
    """Yield batch by batch, in the order of the records."""
    done = 0
    wanted = ExtractSpec("", batch_size=spec.batch_size, workers=spec.workers, compile="none")
    work = Work(records, len(records))
    with (
        open_stream(extractor, wanted, work, note=progress.note) as stream,
        closing(stream.run(records)) as batches,
    ):
        for batch in batches:
            yield records[done : done + len(batch.items)], batch.items, answers_of(bundle, batch)
            done += len(batch.items)


def answers_of(bundle: Bundle, batch: Done) -> Answers:
    """Answer for one batch; what has no features has NaN for every number, and an empty set."""
    found = bundle.answer({layer: batch.rows[layer][batch.good] for layer in bundle.layers})
    return Answers(*(_spread(part, batch.good) for part in (found.probabilities, found.sets, found.novelty)))


def _spread(part: Any, good: np.ndarray) -> Any:
    """Give each good row its place: (m, ...) -> (n, ...), NaN or False elsewhere; None stays None."""
    if part is None:
        return None
    whole = np.full((len(good), *part.shape[1:]), False if part.dtype == bool else np.nan)
    whole[good] = part
    return whole


def answer_of(record: Record, item: Loaded, at: int, found: Answers, bundle: Bundle, spec: PredictSpec) -> dict[str, Any]:
    """Say in words of one image what was found of row `at` of its batch."""
    several = {"labels": []} if bundle.task == "multi" else {}
    if item.failure:
        status, reason = Status.NAMES[item.failure.status], item.failure.reason
        return {"id": record.id, **NOTHING, **several, "status": status, "reason": reason}
    shares = found.probabilities[at]
    order = np.argsort(-shares, kind="stable")
    best = float(shares[order[0]])
    if several:
        several["labels"] = [bundle.classes[i] for i in order if shares[i] >= bundle.label_thresholds[i]]
    return {
        "id": record.id,
        "label": bundle.classes[order[0]],
        "probability": round(best, 6),
        "abstained": best < spec.limit(bundle),
        **several,
        "set": None if found.sets is None else [bundle.classes[i] for i in order if found.sets[at, i]],
        **_familiar(None if found.novelty is None else float(found.novelty[at])),
        "top": [{"label": bundle.classes[i], "probability": round(float(shares[i]), 6)} for i in order[: spec.top]],
        "status": Status.NAMES[Status.OK],
        "reason": "",
    }


def _familiar(novelty: float | None) -> dict[str, Any]:
    if novelty is None:
        return {"novelty": None, "known": None}
    return {"novelty": round(novelty, 4), "known": novelty <= 1}


def evaluate_run(spec: PredictSpec, data: str, root: Path | None, progress: Progress) -> dict[str, Any]:
    """Measure a run on labelled images, as `assess` does: metrics with intervals, calibration, what its thresholds did.

    Where the data have splits, the test split counts, or else the validation one: a run may have seen the others.
    """
    bundle, extractor = open_run(spec)
    records = unseen(tuple(record for record in open_source(data, root).records if record.label is not None))
    if not records:
        raise FitError("no labelled images", where=data, remedy="Class folders, or a manifest with a label column")
    progress.start("evaluate", len(records))
    parts, contents = [], []
    for batch, items, found in _answered(spec, bundle, extractor, records, progress):
        parts.append(found)
        contents += [item.digest for item in items]
        progress.advance(len(batch))
    return assess(bundle, records, contents, _together(parts), spec.limit(bundle))


def _together(parts: list[Answers]) -> Answers:
    """Join the answers of all batches."""

    def joined(name: str) -> Any:
        column = [getattr(part, name) for part in parts]
        return None if column[0] is None else np.concatenate(column)

    return Answers(joined("probabilities"), joined("sets"), joined("novelty"))


def unseen(records: tuple[Record, ...]) -> tuple[Record, ...]:
    """Return the records of the test split, or else of the validation one; all where there are no splits."""
    splits = {record.split for record in records}
    wanted = next((split for split in ("test", "val") if split in splits), None)
    return tuple(record for record in records if wanted is None or record.split == wanted)


def csv_row(answer: dict[str, Any]) -> dict[str, Any]:
    """Flatten an answer for CSV: `top`, `set` and `labels` become JSON in one cell each."""
    lists = {name: json.dumps(answer[name]) for name in ("labels", "set") if answer.get(name) is not None}
    return {**answer, **lists, "top": json.dumps({each["label"]: each["probability"] for each in answer["top"]})}
