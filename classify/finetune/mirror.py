"""Does a mirror image still mean the same? The probe answers for images and their mirror images, out of fold.

Letters, digits and spectrograms are other things in a mirror: a training that shows them mirrored would teach what is
wrong.
"""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from classify.evaluate import draw_resamples
from classify.finetune.image_examples import ImageExamples
from classify.folds import Folds
from classify.inputs import Inputs
from classify.probe.memo import Kept
from classify.probe.rows import array_rows
from classify.probe.transforms import transform_named
from classify.scoring import join
from classify.statistics import paired
from classify.trials import Task, Trial
from extract.devices import pick_device
from extract.forward import rebuild_extractor
from extract.progress import Progress, Silent
from extract.recipe import view_of
from extract.record import Record
from extract.store.reader import FeatureSet

MOST = 500
"""Images that are looked at: a loss of 5 points in accuracy is then told from none."""

FITTED = 5000
"""Images that a probe is fitted on at most: what it says of mirror images does not hang on more of them."""

HARM = 0.01
"""Loss of accuracy that counts as harm, where it is certain."""

CACHED, COMPUTED = "cached", "computed"


@dataclass(frozen=True)
class Mirror:
    """What became of accuracy in the mirror: `drop` in it is {value, low, high}, of `n` images, each beside itself.

    `flip` says whether training images may be mirrored; `rows` whether their features were cached or computed.
    """

    flip: bool
    n: int
    accuracy: float
    mirrored: float
    drop: dict[str, float]
    rows: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as metrics.json has it."""
        return asdict(self)


def mirror_test(
    inputs: Inputs,
    best: Trial,
    records: Iterable[Record],
    *,
    device: str = "auto",
    workers: int = 1,
    progress: Progress | None = None,
) -> Mirror:
    """Answer for up to MOST training images and for their mirror images by the probe `best`, fitted without their fold.

    Mirror images are harmful where the lower end of the 95 % interval of the loss, paired, is above HARM. Where the
    cache has none they are computed, of `records`. Raises FitError where an image is gone or was changed.
    """
    task, features = inputs.task, inputs.features
    splits = chosen(task)
    at = np.concatenate([test for _, test in splits])
    layers, rows = best.candidate.layers, inputs.data.train.rows[at]
    cached = features.views > 1 and features.recipe.view_flips
    if cached:
        blocks = {layer: features.read(view_of(layer, 1), rows) for layer in layers}
    else:
        with ImageExamples(
            features, records, rows, task.y[at], workers=workers, device=pick_device(device)
        ) as examples:
            blocks = mirrored(features, layers, examples, np.arange(len(at)), progress or Silent())
    plain, other = answers(inputs, best, splits, blocks)
    resamples = draw_resamples(len(at), None if task.groups is None else task.groups[at], task.seed)
    drop = paired(task.y[at], plain, other, resamples, "accuracy")
    right, left = (float((each == task.y[at]).mean()) for each in (plain, other))
    said = {"value": drop.mean, "low": drop.low, "high": drop.high}
    return Mirror(
        flip=drop.low <= HARM, n=len(at), accuracy=right, mirrored=left, drop=said, rows=CACHED if cached else COMPUTED
    )


def chosen(task: Task) -> Folds:
    """Choose who is fitted on and who is looked at, fold by fold until that is enough: positions."""
    rng, splits, left = np.random.default_rng(task.seed), [], MOST
    for train, test in task.folds:
        if left:
            test = np.sort(rng.permutation(test)[:left])
            splits.append((_some(train, task.y[train], rng), test))
            left -= len(test)
    return splits


def _some(at: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw up to FITTED positions (n,), one of every class at least."""
    order = rng.permutation(len(at))
    firsts = order[np.unique(y[order], return_index=True)[1]]
    others = order[~np.isin(order, firsts)]
    return np.sort(at[np.concatenate([firsts, others])[: max(FITTED, len(firsts))]])


def mirrored(
    features: FeatureSet, layers: tuple[str, ...], examples: ImageExamples, at: np.ndarray, progress: Progress
) -> dict[str, np.ndarray]:
    """Compute the features of mirror images by the frozen network, in fp32: examples (n,) -> {tap: (n, D) float32}."""
    recipe = replace(features.recipe, precision="fp32", tf32=False)
    extractor = rebuild_extractor(recipe, features.weights_path, layers, device=str(examples.device))
    progress.start("mirror images", len(at))
    parts: list[dict[str, np.ndarray]] = []
    with closing(examples.plain(at, batch_size=min(32, extractor.batch_size))) as batches:
        for batch in batches:
            parts.append(extractor.exact(batch.x.flip(3)))  # the centre view in a mirror is the mirrored centre view
            progress.advance(len(batch.at))
    return {layer: np.concatenate([part[layer] for part in parts]) for layer in layers}


def answers(inputs: Inputs, best: Trial, splits: Folds, blocks: dict[str, np.ndarray]) -> np.ndarray:
    """Answer for those looked at, and for them in the mirror: `blocks` {tap: (m, D)} -> codes (2, m).

    All are rows of one small task, so that each head is fitted once, on images as they are, and answers for both.
    """
    task, candidate = inputs.task, best.candidate
    used = np.unique(np.concatenate([each for split in splits for each in split]))
    own = task.read(candidate.layers, candidate.transform).take(used)
    other = transform_named(candidate.transform).rowwise(join([blocks[layer] for layer in candidate.layers]))
    X, looked = np.concatenate([own, other.astype(own.dtype)]), [test for _, test in splits]
    y = task.y[np.concatenate([used, *looked])]
    small = replace(task, y=y, groups=None, read=lambda *_: array_rows(X), kept=Kept())
    behind = np.split(np.arange(len(used), len(y)), np.cumsum([len(test) for test in looked])[:-1])
    both = [
        (np.searchsorted(used, train), np.concatenate([np.searchsorted(used, test), there]))
        for (train, test), there in zip(splits, behind, strict=True)
    ]
    scores = inputs.solver.scores(small, candidate, best.params, both)
    return np.concatenate([each.argmax(axis=1).reshape(2, -1) for each in scores], axis=1)
