"""The depth profile: every stage of the network scanned, with the weights of the features and with random ones."""

import time
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path

import numpy as np

from classify.advise.profile import Answered, Profile, make_profile
from classify.advise.sample import subset, task_on
from classify.finetune.again import extraction_again
from classify.finetune.begin import part_of
from classify.finetune.images import Source
from classify.finetune.maps import map_rows
from classify.folds import Part
from classify.inputs import Inputs
from classify.probe.memo import Kept, digest, memo
from classify.probe.rows import array_rows
from classify.probe.transforms import rowwise
from classify.search import scan_one
from classify.spec import FitSpec
from classify.trials import Candidate, Task
from extract.backbones import open_skeleton
from extract.errors import FitError
from extract.progress import Watch
from extract.recipe import DEFAULT_POOL, Recipe, Tap
from extract.run import dry_run, extract
from extract.spec import ExtractSpec
from extract.store.folders import FITS
from extract.store.reader import FeatureSet
from extract.taps import open_trunk

MOST = 2000
"""Images at most: an accuracy of 80 % is then known to 1.8 points, and a core scans a layer in 2 to 3 s."""

MAX_DIMS = 4096
"""Numbers a layer is pooled to at most, so that all have about as many: early maps are wide, late ones are not."""

TRANSFORM = "std"
"""One for all layers and both networks: nothing is chosen but the penalty."""

SUFFIX = "-depth"


@dataclass(frozen=True, eq=False)
class Looks:
    """What is looked at: training rows `part` of the features, at positions `at`, and their extraction by two networks.

    `extractions` are with the weights of the features, and with random ones. `task` has what the answers are judged on,
    and no rows yet.
    """

    features: FeatureSet
    at: np.ndarray
    part: Part
    extractions: tuple[ExtractSpec, ExtractSpec]
    task: Task


def depth_profile(spec: FitSpec, inputs: Inputs, source: Source, watch: Watch, *, most: int = MOST) -> Profile:
    """Scan the end of every stage on up to `most` training images, with the features' weights and with random ones.

    Both networks are the same from the image to the answer, in fp32, and all layers are judged on the same rows left
    out, by ridge. What was extracted or scanned before is not again. Raises FitError where images are gone or were
    changed, or the features are of the first stage alone; else whatever `extract` raises.
    """
    began = time.perf_counter()
    inputs.features.check_weights()
    looks = _looks(spec, inputs, source, most)
    (dims, trained), (_, fresh) = (_answers(looks, extraction, watch) for extraction in looks.extractions)
    task = looks.task
    found = make_profile(list(dims.items()), task.y, trained, fresh, task.resamples, task.metric)
    return replace(found, answered=Answered(looks.at, trained), seconds=round(time.perf_counter() - began, 3))


def images_within(spec: FitSpec, inputs: Inputs, source: Source, watch: Watch, *, seconds: float) -> int:
    """Say how many images, MOST at most, can be extracted for a depth profile in so many seconds, by a short probe.

    Scanning comes on top. Where all are cached that is all of them.
    """
    looks = _looks(spec, inputs, source, MOST)
    plans = [dry_run(extraction, watch) for extraction in looks.extractions]
    per_image_s = sum(1 / plan["images_per_s"] for plan in plans if plan["to_compute"])
    return min(len(looks.part), int(seconds / per_image_s)) if per_image_s else len(looks.part)


def _looks(spec: FitSpec, inputs: Inputs, source: Source, most: int) -> Looks:
    features, train = inputs.features, inputs.data.train
    at = subset(train, spec.seed, most)
    part = part_of(train, at)
    known = replace(
        extraction_again(features, source.data, source.root, SUFFIX),
        only=frozenset(features.ids[row] for row in part.rows.tolist()),
        taps=stage_taps(features.recipe),
        # Of a network that has learned nothing, float16 holds neither the largest nor the smallest numbers.
        precision="fp32",
        tf32=False,
        store="float32",
        device=spec.device,
        workers=spec.jobs,
    )
    random = replace(known, backbone=replace(known.backbone, weights="none", seed=spec.seed))
    return Looks(features, at, part, (known, random), task_on(part, spec, inputs.task))


def stage_taps(recipe: Recipe) -> tuple[str, ...]:
    """Name the ends of all stages that the recipe's weights reach, pooled to about as many numbers each.

    Behind them stands the deepest pooled tap, where layers with weights lie between (fc7 of AlexNet; not the mean of a
    ResNet's last stage, which is that stage pooled otherwise). Raises FitError where there are fewer than two.
    """
    trunk, side = open_trunk(open_skeleton(recipe.model)), recipe.preprocessing.crop_size
    nodes = {node.name: node for node in trunk.profile(side)}
    pairs = [(tap, nodes[node]) for tap, node in zip(recipe.taps, recipe.nodes, strict=True) if not tap.is_map]
    deepest, end = pairs[-1]
    ends = {name: nodes[trunk.resolve(name)] for name in trunk.stages(side)}
    taps = [_pooled(name, node.shape) for name, node in ends.items() if node.parameters <= end.parameters]
    if not any(node.parameters == end.parameters for node in ends.values()):
        taps.append(_pooled(deepest.layer, end.shape))
    if len(taps) < 2:
        said = f"the features are of the first stage of {recipe.model}, before which there is none"
        raise FitError(said, remedy="Extract a deeper layer too, as with --layer penultimate")
    return tuple(taps)


def _pooled(layer: str, shape: tuple[int, ...]) -> str:
    """Name a tap of a layer as wide as MAX_DIMS allows: a map (C, H, W) is pooled to a grid, a row stays."""
    if len(shape) == 1:
        return layer
    side = min(isqrt(MAX_DIMS // shape[0]), *shape[1:])
    return Tap(layer, f"grid:{side}" if side > 1 else DEFAULT_POOL).name


def _answers(looks: Looks, extraction: ExtractSpec, watch: Watch) -> tuple[dict[str, int], np.ndarray]:
    """Extract and scan all layers: -> {tap: dims}, shallow to deep, and what each answers out of fold, (L, n) codes."""
    with FeatureSet(Path(extract(extraction, watch)["path"])).check() as features:
        rows = map_rows(features, looks.features, looks.part.rows)
        dims = {layer: features.shapes[layer][0] for layer in features.layers}
        watch.start("scan by depth", len(dims))
        return dims, np.stack([_scanned(looks.task, features, rows, layer, watch) for layer in dims])


def _scanned(task: Task, features: FeatureSet, rows: np.ndarray, layer: str, watch: Watch) -> np.ndarray:
    """Answer for rows (n,) of a layer, each by a ridge classifier that was fitted without it: (n,) codes."""
    kept = Kept(memo(features.folder / FITS), {"features": features.digest, "rows": digest(rows)})
    about = {"layer": layer, "transform": TRANSFORM, "metric": task.metric}
    judged_on = digest(task.y, task.groups, [list(fold) for fold in task.folds])

    def scan() -> dict[str, np.ndarray]:
        X = level(features.read(layer, rows))
        asked = replace(task, read=lambda _, transform: array_rows(rowwise(transform, X)))
        return {"predicted": scan_one(asked, Candidate((layer,), TRANSFORM, X.shape[1], 0)).predicted}

    found = kept.about(**about, judged_on=judged_on).remember("depth", scan)
    watch.advance(1)
    return found["predicted"]


def level(X: np.ndarray) -> np.ndarray:
    """Bring all rows of a layer to a mean square of 1 by one number: (n, D) -> (n, D) of the same type.

    What is not trained grows or fades from layer to layer by orders of magnitude, beyond what a scan takes for noise.
    """
    size = float(np.sqrt(np.mean(np.square(X, dtype=np.float64))))
    return X / X.dtype.type(size) if size else X
