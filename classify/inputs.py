"""What a fit reads: the taps to compare, their rows, the images behind them, and what is there twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classify.dataset import Dataset, read_dataset
from classify.evaluate import draw_resamples
from classify.folds import make_folds
from classify.heads import Head, find_head
from classify.hygiene import Duplicates, Images, find_duplicates, open_images
from classify.imbalance import leading_metric
from classify.probe.backend import pick_device
from classify.probe.memo import Kept, digest, memo
from classify.probe.memory import MemoryPlan, plan_memory
from classify.probe.rows import read_rows
from classify.solvers import Pipelines, Solver, check_kept, few_rows, solver_of
from classify.spec import AUTO, FitSpec
from classify.trials import Task
from extract.errors import FitError, unknown
from extract.progress import Progress
from extract.record import Status
from extract.spec import STAGES
from extract.store import FeatureSet, open_features
from extract.store.folders import FITS

SECONDS = {"auto": None, "always": float("inf"), "off": 0.0}
"""What the search for near-duplicates may take; None is its own limit."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """All that a fit works on. `dims` says of every tap how many numbers it gives, shallow to deep."""

    features: FeatureSet
    dims: dict[str, int]
    images: Images | None
    twins: Duplicates
    data: Dataset
    task: Task
    solver: Solver
    notes: list[str]
    warnings: list[str]

    @property
    def deepest(self) -> str:
        """The deepest tap."""
        return list(self.dims)[-1]

    def tell(self, watch: Progress) -> None:
        """Say what is worth knowing of them before the work goes on."""
        for note in self.notes:
            watch.note(note)

    @property
    def trouble(self) -> list[str]:
        """Say which images could not be looked at so far, and why."""
        return [] if self.images is None else self.images.trouble

    def pictures(self, wanted: Sequence[str]) -> dict[str, str | None]:
        """Make thumbnails of images by their id: data: URIs, None for those that are not at hand."""
        if self.images is None:
            return {}
        row = {id_: row for row, id_ in enumerate(self.features.ids)}
        return {id_: self.images.thumbnail(row[id_]) for id_ in wanted}


def open_for_fit(spec: FitSpec) -> FeatureSet:
    """Open the features, and make sure that a bundle can be made of them."""
    features = open_features(spec.features, spec.cache)
    features.check_weights()
    return features


def read_inputs(spec: FitSpec, features: FeatureSet, progress: Progress, alike: str = "") -> Inputs:
    """Find what is there twice, split, and make the folds that all configurations share.

    Images are near-duplicates by the tap `alike`, by default the deepest.
    """
    dims, head = layers_of(spec, features), find_head(spec.head, spec.params)
    images, notes = open_images(features, spec.data, spec.root)
    twins, near = look_for_duplicates(spec, features, alike or list(dims)[-1], images, progress)
    data = read_dataset(
        features, labels=spec.labels, group=spec.group, hold_out=spec.hold_out, seed=spec.seed, near=near
    )
    plan = plan_memory(len(data.train), sum(dims.values()), len(data.classes), spec.cv)
    solver, notes = solver_of(head, spec.class_weight), [*notes, *twins.notes]
    if not plan.in_memory:
        notes.append(plan.words)
    if isinstance(solver, Pipelines):
        check_room(plan, solver.head)
        check_head(head, spec, features, next(iter(dims)), data)
    task, said = make_task(spec, features, data, plan.room_bytes)
    if spec.tune.folds > len(task.folds):
        notes.append(
            f"--folds-trained {spec.tune.folds}: there are {len(task.folds)} folds, all of which are answered for"
        )
    return Inputs(features, dims, images, twins, data, task, solver, notes, [*data.warnings, *said])


def make_task(spec: FitSpec, features: FeatureSet, data: Dataset, room_bytes: int) -> tuple[Task, list[str]]:
    """Put together what all configurations are judged on: -> it, and what there is to warn of."""
    train = data.train
    folds, said = make_folds(train, spec.cv, spec.seed)
    task = Task(
        y=train.y,
        groups=train.groups,
        folds=folds,
        resamples=draw_resamples(len(train), train.groups, spec.seed),
        n_classes=len(data.classes),
        metric=leading_metric(train.y) if spec.metric == AUTO else spec.metric,
        read=lambda layers, transform: read_rows(features, layers, transform, train.rows, room_bytes=room_bytes),
        seed=spec.seed,
        jobs=spec.jobs,
        device=pick_device(spec.device),
        class_weight=spec.class_weight,
        ray=spec.engine.name == "ray",
        kept=Kept(memo(features.folder / FITS), {"features": features.digest, "rows": digest(train.rows)}),
    )
    return task, said


def check_room(plan: MemoryPlan, who: str) -> None:
    """Raise FitError where features do not fit into memory, and `who` cannot take them a block at a time."""
    if plan.in_memory:
        return
    said = f"{who} needs all features in memory, and there is no room for {plan.bytes / 1e9:.2f} GB of them"
    remedy = "Take --head logistic, or ridge without weights of classes, which stream them; or fewer taps with --layer"
    raise FitError(said, remedy=remedy)


def check_head(head: Head, spec: FitSpec, features: FeatureSet, layer: str, data: Dataset) -> None:
    """Raise FitError where a head by import path cannot be kept in a bundle, before it is searched for."""
    if head.kind == "imported":
        at = few_rows(data.train.y)
        check_kept(head, features.read(layer, data.train.rows[at]), data.train.y[at], spec.class_weight)


def layers_of(spec: FitSpec, features: FeatureSet) -> dict[str, int]:
    """Return the taps to compare and how many numbers each gives, shallow to deep.

    Maps are none of them: a head on some 100,000 columns learns the training set.
    """
    for layer in spec.layers:
        if layer == STAGES:
            said = f"{STAGES!r} is for extract; here taps are named one by one"
            remedy = f"Leave --layer out to compare all of them: {', '.join(features.layers)}"
            raise FitError(said, where=features.name, remedy=remedy)
        if layer not in features.layers:
            unknown("layer", layer, features.layers, FitError, remedy=f"{features.name} holds others; extract it first")
    pooled = [tap.name for tap in features.recipe.taps if not tap.is_map]
    maps = [layer for layer in (spec.layers if pooled else features.layers) if layer not in pooled]
    if maps:
        remedy = f"Extract it pooled too: --layer {maps[0].partition(':')[0]}"
        raise FitError(f"{maps[0]!r} is a map, and a head takes rows", where=features.name, remedy=remedy)
    wanted = [layer for layer in pooled if layer in spec.layers or not spec.layers]
    return {layer: features.read(layer, np.arange(0)).shape[1] for layer in wanted}


def blocks_of(features: FeatureSet, layers: tuple[str, ...], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Read rows (n,) of some taps as bundles take them: {tap: (n, D_i)}."""
    return {layer: features.read(layer, rows) for layer in layers}


def look_for_duplicates(
    spec: FitSpec, features: FeatureSet, layer: str, images: Images | None, progress: Progress
) -> tuple[Duplicates, np.ndarray]:
    """Find what is there twice among all good rows: -> it, and (N,) a number of every row that its twins share."""
    rows = np.flatnonzero(np.asarray(features.status) == Status.OK)
    limit = SECONDS[spec.duplicates]
    known = {} if limit is None else {"max_seconds": limit}
    found = find_duplicates(features, layer, rows, images, progress=progress, device=pick_device(spec.device), **known)
    near = np.arange(len(features.ids)) + len(rows)
    near[rows] = found.clusters
    return found, near
