"""Whether a program answers as its run does: the same images down both roads, probabilities side by side."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from classify.answering import PredictSpec, answered
from classify.deployed import Bundle
from classify.evaluate import draw_resamples, group_codes
from classify.listing import Images
from classify.multilabel.labels import matrix_of
from classify.statistics import paired
from extract.errors import ExportError
from extract.forward import Extractor
from extract.images import DECODERS
from extract.loader import Loaded
from extract.pixels import PixelStream
from extract.progress import Progress
from extract.record import Record

TOLERANCE = 1e-4
"""What probabilities may differ by."""

Answer = Callable[[np.ndarray], np.ndarray]
"""A program: pixels (n, 3, S, S) uint8 -> probabilities (n, C)."""


@dataclass(frozen=True)
class Roads:
    """The roads that images can take to answers of a bundle, in batches of so many, decoded by so many processes."""

    bundle: Bundle
    batch_size: int
    workers: int
    progress: Progress

    def by_run(self, extractor: Extractor, records: Sequence[Record]) -> tuple[np.ndarray, list[Loaded]]:
        """Answer as `predict` does: -> probabilities (n, C), NaN where an image is bad, and what became of each."""
        self.progress.start("predict", len(records))
        wanted = PredictSpec("", batch_size=self.batch_size, workers=self.workers, compile="none")
        shares, items = [], []
        for batch in answered(wanted, self.bundle, extractor, Images.of(records), self.progress):
            shares.append(batch.answers.probabilities)
            items += batch.items
            self.progress.advance(len(batch.items))
        return np.concatenate(shares), items

    def by_program(self, answer: Answer, records: Sequence[Record]) -> np.ndarray:
        """Answer by a program, of what `predict` would show its network: -> (n, C); of bad images without meaning."""
        self.progress.start("program", len(records))
        parts = []
        for pixels in self.pixels(records):
            parts.append(answer(pixels))
            self.progress.advance(len(pixels))
        return np.concatenate(parts)

    def pixels(self, records: Sequence[Record]) -> Iterator[np.ndarray]:
        """Yield cropped images, batch by batch: (n, 3, S, S) uint8."""
        recipe = self.bundle.recipe
        if recipe.decoder == DECODERS["gpu"]:
            recipe = replace(recipe, decoder=DECODERS["exact"])
        with PixelStream(recipe, batch_size=self.batch_size, workers=self.workers) as stream:
            for batch in stream.batches(records):
                yield np.ascontiguousarray(batch.pixels.numpy())


@dataclass(frozen=True)
class Agreement:
    """Of `n` images, `other_labels` are called otherwise by the one than by the other; `gap` is between probabilities.

    Two labels that are equally probable, to within TOLERANCE, are not called otherwise.
    """

    n: int
    other_labels: int
    gap: float


def agreement(bundle: Bundle, expected: np.ndarray, given: np.ndarray) -> Agreement:
    """Compare probabilities (n, C), of images that the one could read; raises ExportError where it could none."""
    bad = np.isnan(expected).all(axis=1)
    if bad.all():
        raise ExportError("not one image could be read", remedy="See the reasons with: pipeline.py predict")
    expected, given = expected[~bad], given[~bad]
    other = TASKS[bundle.task](bundle, expected, given)
    return Agreement(len(expected), int(other.sum()), float(np.abs(expected - given).max()))


def _other_label(bundle: Bundle, expected: np.ndarray, given: np.ndarray) -> np.ndarray:
    rows, named = np.arange(len(expected)), given.argmax(axis=1)
    return expected.max(axis=1) - expected[rows, named] > TOLERANCE


def _other_labels(bundle: Bundle, expected: np.ndarray, given: np.ndarray) -> np.ndarray:
    limits = np.array(bundle.label_thresholds)
    changed = (expected >= limits) != (given >= limits)
    return (changed & (np.abs(expected - limits) > TOLERANCE)).any(axis=1)


TASKS = {"single": _other_label, "multi": _other_labels}
"""By task, which images are called otherwise: (n,) bool."""


def check(bundle: Bundle, expected: np.ndarray, given: np.ndarray) -> Agreement:
    """Raise ExportError unless a program calls every image as the run does, its probabilities within TOLERANCE."""
    found = agreement(bundle, expected, given)
    if found.other_labels or not found.gap <= TOLERANCE:
        said = (
            f"the program answers otherwise than predict: {found.other_labels} of {found.n} labels, and probabilities "
            f"by {found.gap:.1e}, where {TOLERANCE:.0e} is allowed"
        )
        raise ExportError(said, where=bundle.head, remedy="No file was written. Try the other --format")
    return found


def hits(bundle: Bundle, records: Sequence[Record], shares: np.ndarray) -> np.ndarray:
    """Tell which images are called by their labels, all of them where there may be several: -> (n,) 1 or 0."""
    labels = [str(record.label) for record in records]
    if bundle.task == "multi":
        truth, unknown = matrix_of(labels, bundle.classes)
        right = ((shares >= np.array(bundle.label_thresholds)) == truth).all(axis=1)
        return (right & ~np.asarray(unknown, bool)).astype(np.int64)
    named = np.array(bundle.classes, object)[shares.argmax(axis=1)]
    return (named == np.array(labels, object)).astype(np.int64)


def accuracy_lost(
    bundle: Bundle, records: Sequence[Record], items: Sequence[Loaded], before: np.ndarray, after: np.ndarray
) -> dict[str, object] | None:
    """Measure what the answers `after` lose on those `before` (n, C); None where images have no labels.

    The loss is of the share of images that are called right, with its 95 % interval, by draws of images, or of groups.
    """
    at = [i for i, record in enumerate(records) if record.label is not None and not np.isnan(before[i]).all()]
    if not at:
        return None
    chosen = [records[i] for i in at]
    was, now = hits(bundle, chosen, before[at]), hits(bundle, chosen, after[at])
    groups = group_codes([record.group or "" for record in chosen], [items[i].digest for i in at])
    loss = paired(np.ones(len(at), np.int64), was, now, draw_resamples(len(at), groups, seed=0), "accuracy")
    return {
        "n": len(at),
        "fp32": float(was.mean()),
        "int8": float(now.mean()),
        "loss": {"value": loss.mean, "low": loss.low, "high": loss.high},
    }
