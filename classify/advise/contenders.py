"""One network in a comparison: its stages extracted and scanned on the rows that all share, and what that costs."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from classify.advise.depth import level
from classify.advise.sample import subset, task_on
from classify.evaluate import values_of
from classify.finetune.again import extraction_again
from classify.finetune.begin import part_of
from classify.finetune.images import Source
from classify.finetune.maps import map_rows
from classify.folds import Part
from classify.inputs import Inputs
from classify.probe.memo import Kept, digest, memo
from classify.probe.rows import array_rows
from classify.probe.transforms import candidates, rowwise
from classify.report.text import duration
from classify.search import scan_one
from classify.spec import FitSpec
from classify.trials import Candidate, Task, Trial
from extract.backbones import open_skeleton
from extract.engines import probe
from extract.errors import OptionError
from extract.forward import build_extractor
from extract.progress import Watch
from extract.recipe import PENULTIMATE, Recipe
from extract.run import dry_run, extract
from extract.spec import STAGES, BackboneSpec, ExtractSpec
from extract.store.folders import FITS
from extract.store.reader import FeatureSet
from extract.taps import open_trunk

TAPS = (STAGES, PENULTIMATE)
SUFFIX = "-models"


@dataclass(frozen=True, eq=False)
class Bout:
    """What networks are compared on: training rows `part` of features whose images are in `source`.

    `task` has what the answers are judged on, and no rows yet.
    """

    spec: FitSpec
    features: FeatureSet
    source: Source
    part: Part
    task: Task

    def extraction(self) -> ExtractSpec:
        """Return the extraction that made the features, of the images that are compared on."""
        return replace(
            extraction_again(self.features, self.source.data, self.source.root, SUFFIX),
            only=frozenset(self.features.ids[row] for row in self.part.rows.tolist()),
            device=self.spec.device,
            workers=self.spec.jobs,
        )


@dataclass(frozen=True, eq=False)
class Contender:
    """One network: what it answers out of fold, (n,) codes, the layer that did best, and what a run up to it costs.

    `backbone` is None for the network of the features.
    """

    backbone: BackboneSpec | None
    model: str
    best: Candidate
    predicted: np.ndarray
    parameters: int
    giga_ops: float
    images_per_s: float
    seconds: float

    @property
    def cost(self) -> tuple[float, int]:
        """Order networks by what an image costs, on any machine: multiply-adds, then numbers to keep."""
        return self.giga_ops, self.best.dims


def open_bout(spec: FitSpec, inputs: Inputs, source: Source, most: int) -> Bout:
    """Choose up to `most` training images to compare on, and their folds."""
    train = inputs.data.train
    part = part_of(train, subset(train, spec.seed, most))
    return Bout(spec, inputs.features, source, part, task_on(part, spec, inputs.task))


def current(bout: Bout, inputs: Inputs, watch: Watch) -> Contender:
    """Scan the features as they are."""
    began = time.perf_counter()
    speed = _speed(bout, bout.extraction(), math.inf, watch)
    return _judged(bout, bout.features, bout.part.rows, list(inputs.dims), (None, speed, began), watch)


def contender(bout: Bout, backbone: BackboneSpec, left_s: float, watch: Watch) -> Contender:
    """Extract the ends of a network's stages and what it says last, looking at images its own way, and scan them."""
    began = time.perf_counter()
    extraction = replace(bout.extraction(), backbone=backbone, taps=TAPS)
    speed = _speed(bout, extraction, left_s, watch)
    with FeatureSet(Path(extract(extraction, watch)["path"])).check() as features:
        rows = map_rows(features, bout.features, bout.part.rows)
        return _judged(bout, features, rows, features.layers, (backbone, speed, began), watch)


def _speed(bout: Bout, extraction: ExtractSpec, left_s: float, watch: Watch) -> float:
    """Measure images per second by a short probe; OptionError where there is less time left than all would take."""
    plan = dry_run(extraction, watch)
    if (needed := plan["estimated_s"]) > left_s:
        said = f"it would take about {duration(needed)}, and {duration(max(0.0, left_s))} are left"
        raise OptionError(said, remedy="Allow more with --budget")
    if plan["to_compute"]:
        return plan["images_per_s"]
    records = [bout.source.records[row] for row in bout.part.rows.tolist()]
    return round(probe([records], build_extractor(extraction), extraction), 1)


def _judged(
    bout: Bout,
    features: FeatureSet,
    rows: np.ndarray,
    layers: Sequence[str],
    known: tuple[BackboneSpec | None, float, float],
    watch: Watch,
) -> Contender:
    """Scan layers on rows (n,) of their features; what is `known` are the backbone, its speed, and when it began."""
    backbone, speed, began = known
    trials = _scanned(bout.task, features, rows, layers, watch)
    # Of equals the first layer and the largest penalty.
    tried = [codes for trial in trials for codes in _tried(trial)]
    owner = [trial.candidate for trial in trials for _ in _tried(trial)]
    predicted, at = cross_chosen(np.stack(tried), bout.task)
    parameters, giga_ops = _cost(features.recipe, owner[at].layers[0])
    model, took = features.recipe.model if backbone is None else backbone.model, time.perf_counter() - began
    return Contender(backbone, model, owner[at], predicted, parameters, giga_ops, speed, round(took, 3))


def _tried(trial: Trial) -> np.ndarray:
    """Return what each penalty of a scan answers, from the largest: (m, n) codes."""
    return trial.predicted[None] if trial.tried is None else trial.tried[::-1]


def _scanned(task: Task, features: FeatureSet, rows: np.ndarray, layers: Sequence[str], watch: Watch) -> list[Trial]:
    """Scan each layer in every transform that suits its width, as a fit does."""
    key = {"features": features.digest, "rows": digest(rows), "asked": SUFFIX}

    def read(asked: tuple[str, ...], transform: str) -> Any:
        return array_rows(rowwise(transform, level(features.read(asked[0], rows))))

    task = replace(task, read=read, kept=Kept(memo(features.folder / FITS), key))
    n_train, trials = min(len(train) for train, _ in task.folds), []
    watch.start("scan layers", len(layers))
    for depth, layer in enumerate(layers):
        dims = features.shapes[layer][0]
        trials += [scan_one(task, Candidate((layer,), name, dims, depth)) for name in candidates(n_train, dims)]
        watch.advance(1)
    return trials


def cross_chosen(tried: np.ndarray, task: Task) -> tuple[np.ndarray, int]:
    """Answer each fold by what does best on all others: (m, n) codes -> (n,) codes, and what does best on all rows.

    So nothing is worth more for having had more layers to choose from, as the best of many on the same rows would be.
    Of equals the first.
    """
    predicted = np.empty(tried.shape[1], tried.dtype)
    for _, test in task.folds:
        rest = np.delete(np.arange(len(task)), test)
        at = int(values_of(task.y[rest], tried[:, rest])[task.metric].argmax())
        predicted[test] = tried[at, test]
    return predicted, int(task.values(tried).argmax())


def _cost(recipe: Recipe, layer: str) -> tuple[int, float]:
    """Return what all up to a layer costs: parameters, and billions of multiply-adds for an image."""
    [node] = [node for tap, node in zip(recipe.taps, recipe.nodes, strict=True) if tap.name == layer]
    profile = open_trunk(open_skeleton(recipe.model)).profile(recipe.preprocessing.crop_size)
    [found] = [each for each in profile if each.name == node]
    return found.parameters, found.flops / 2e9
