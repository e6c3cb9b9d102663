"""New images -> answers, and labelled ones -> what the answers are worth."""

import hashlib
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from classify.answering import PredictSpec, answered, answers_of, open_proven, open_run
from classify.answers import CSV_FIELDS, answer_of, csv_row
from classify.deployed import Answers, Bundle
from classify.listing import Images, records_of
from classify.outputs import PARQUET, STREAM_FULL, Write, check_parquet, parquet_writer, told, writer_of
from classify.resume import Part
from extract.errors import BundleError, FitError, OptionError
from extract.forward import Extractor
from extract.progress import Progress
from extract.record import Record
from extract.sources import open_source

__all__ = [
    "CSV_FIELDS",
    "Images",
    "PredictSpec",
    "Target",
    "answer_of",
    "answers_from",
    "answers_of",
    "csv_row",
    "evaluate_run",
    "open_run",
    "predict",
    "records_of",
    "self_test",
    "unseen",
    "write_answers",
]

Given = Generator[dict[str, Any], None, None]
"""Answers, as they are given."""


@dataclass(frozen=True)
class Target:
    """Where answers go: to a file, or to a stream that is open where `path` is None; and in which form.

    With `resume` what an earlier run left of the same file is gone on with.
    """

    path: Path | None
    form: str
    resume: bool = False

    def __post_init__(self) -> None:
        if self.form == PARQUET and self.path is None:
            raise OptionError("Parquet is no stream of text", remedy="Name a file: -o FILE")
        if self.resume and self.form == PARQUET:
            raise OptionError("Parquet cannot be gone on with: it has no rows before its end", remedy="Take jsonl, csv")
        if self.resume and self.path is None:
            raise OptionError("no file to go on with", remedy="Name it: -o FILE")
        if self.form == PARQUET:
            check_parquet()


def predict(spec: PredictSpec, records: Iterable[Record], progress: Progress) -> Given:
    """Yield one answer per record, in order: the fields of CSV_FIELDS, `labels` only where an image may have several.

    `set`, `novelty` and `known` are None where the run has no thresholds for them. Records may be of any number: they
    are taken as they are answered. Raises BundleError where the run is no good before the first answer is asked for,
    and DriftError before the first answer where this machine computes otherwise than the one that fitted.
    """
    return answers_from(spec, *open_run(spec), Images.of(records), progress)


def answers_from(spec: PredictSpec, bundle: Bundle, extractor: Extractor, images: Images, progress: Progress) -> Given:
    """Yield the same of a run that is open."""
    progress.start("predict", images.n)
    for batch in answered(spec, bundle, extractor, images, progress):
        for at, (record, item) in enumerate(zip(batch.records, batch.items, strict=True)):
            yield answer_of(record, item, at, batch.answers, bundle, spec)
        progress.advance(len(batch.records))


def write_answers(spec: PredictSpec, images: Images, target: Target, stream: TextIO | None, progress: Progress) -> None:
    """Answer into a file, which has its name once all answers are there, or, where there is a `stream`, into that."""
    bundle, extractor = open_run(spec)
    classes = tuple(bundle.classes) if spec.probabilities else None
    if stream is not None:
        _write_all(
            answers_from(spec, bundle, extractor, images, progress),
            lambda: writer_of(target.form, stream, classes),
            partial(told, str(getattr(stream, "name", "stdout")).strip("<>"), STREAM_FULL),
        )
        return
    assert target.path is not None  # noqa: S101 there is one of them
    if target.form == PARQUET:
        with parquet_writer(target.path, classes) as write:
            for answer in answers_from(spec, bundle, extractor, images, progress):
                write(answer)
        return
    said = {name: getattr(spec, name) for name in ("top", "abstain_below", "probabilities")}
    said["head"] = spec.head and hashlib.sha256(spec.head.read_bytes()).hexdigest()
    part = Part(target.path, {"bundle": bundle.digest, "format": target.form, **said}, classes)
    with part.alone():
        left, end = _left(part, images, progress) if target.resume and part.check() else (images, part.begin())
        with part.file(end) as file:
            _write_all(
                answers_from(spec, bundle, extractor, left, progress),
                lambda: writer_of(target.form, file, classes, begun=end > 0),
                part.told,
            )


def _write_all(
    answers: Iterable[dict[str, Any]],
    open_writer: Callable[[], Write],
    told: Callable[[], AbstractContextManager[None]],
) -> None:
    """Write answers as they come, what the system refuses of them being `told`."""
    with told():
        write = open_writer()  # a table begins with its header
    for answer in answers:
        with told():
            write(answer)


def _left(part: Part, images: Images, progress: Progress) -> tuple[Images, int]:
    """Say which images have no row yet, and where the rows that are there end."""
    records, n, end = part.left(images.records)
    progress.note(f"{part.part} has {n:,} rows already; it goes on behind them")
    return Images(records, None if images.n is None else images.n - n), end


def self_test(spec: PredictSpec, progress: Progress) -> dict[str, Any]:
    """Prove that this machine makes of a run's examples what the one did that fitted it: features and answers.

    Raises BundleError where the run has no examples, and DriftError where they come out otherwise.
    """
    bundle, extractor = open_run(spec)
    if bundle.examples is None:
        raise BundleError("the run has no examples to be proven by", where=spec.run, remedy="Extract and fit again")
    n = len(bundle.examples.probabilities)
    with open_proven(spec, bundle, extractor, n, progress):
        return {"run": spec.run, "examples": n, "device": extractor.device.type, "bundle": bundle.digest}


def evaluate_run(spec: PredictSpec, data: str, root: Path | None, progress: Progress) -> dict[str, Any]:
    """Measure a run on labelled images, as `assess` does: metrics with intervals, calibration, what its thresholds did.

    Where the data have splits, the test split counts, or else the validation one: a run may have seen the others.
    """
    from classify.assess import assess  # here, as who only predicts need not have SciPy

    bundle, extractor = open_run(spec)
    records = unseen(tuple(record for record in open_source(data, root).records if record.label is not None))
    if not records:
        raise FitError("no labelled images", where=data, remedy="Class folders, or a manifest with a label column")
    progress.start("evaluate", len(records))
    parts, contents = [], []
    for batch in answered(spec, bundle, extractor, Images.of(records), progress):
        parts.append(batch.answers)
        contents += [item.digest for item in batch.items]
        progress.advance(len(batch.records))
    return assess(bundle, records, contents, _together(parts), spec.limit(bundle))


def _together(parts: list[Answers]) -> Answers:
    """Join the answers of all batches."""

    def joined(name: str) -> Any:
        column = [getattr(part, name) for part in parts]
        return None if column[0] is None else np.concatenate(column)

    return Answers(joined("probabilities"), joined("sets"), joined("novelty"))


def unseen(records: tuple[Record, ...]) -> tuple[Record, ...]:
    """Choose the images that a run has not seen, where data have splits: the test split, or else the validation one."""
    splits = {record.split for record in records}
    wanted = next((split for split in ("test", "val") if split in splits), None)
    return tuple(record for record in records if wanted is None or record.split == wanted)
