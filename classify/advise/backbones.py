"""Which network to start from: some of the images extracted by each, its best layer scanned, all on the same rows."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from classify.advise.backbone_words import said_of
from classify.advise.contenders import TAPS, Bout, Contender, contender, current, open_bout
from classify.finetune.again import beside
from classify.finetune.images import Source
from classify.inputs import Inputs
from classify.spec import FitSpec
from classify.statistics import one_standard_error, paired
from classify.trials import Task
from extract.errors import BackboneError, OptionError, RunnerError, TapError
from extract.progress import Watch
from extract.spec import BackboneSpec

MOST = 1000
"""Images at most: a difference of two networks that disagree on a tenth of them is then known to 2 points."""

UNUSABLE = (BackboneError, OptionError, RunnerError, TapError)
"""What stands in the way of one network, and not of the others."""


def parse_models(texts: Iterable[str], weights: str = "auto", seed: int = 0) -> list[BackboneSpec]:
    """Read `NAME` or `NAME=WEIGHTS`, each a model and weights as `extract` takes them; `weights` where none are named.

    Raises OptionError for an empty name.
    """
    parted = [text.strip().partition("=") for text in texts]
    if not all(name for name, _, _ in parted):
        raise OptionError("a network without a name", remedy="Write for example --models resnet18,resnet50=FILE")
    return list(dict.fromkeys(BackboneSpec(name, own or weights, seed) for name, _, own in parted))


def rank_backbones(
    spec: FitSpec,
    inputs: Inputs,
    source: Source,
    models: Sequence[BackboneSpec],
    watch: Watch,
    *,
    seconds: float = math.inf,
    most: int = MOST,
) -> dict[str, Any]:
    """Compare networks, and that of the features as it was extracted, on up to `most` training images.

    Each is worth what its layers and settings that are best on all folds but one answer on that one. Of those within
    one standard error of the best the cheapest is advised. A network that cannot be had, or that would take longer than
    what is left of `seconds`, is a row that says so. Raises FitError where images are gone, and what `extract` raises
    of the cache.
    """
    began = time.perf_counter()
    bout = open_bout(spec, inputs, source, most)
    found, absent = [current(bout, inputs, watch)], []
    for backbone in models:
        left = seconds - (time.perf_counter() - began)
        try:
            found.append(contender(bout, backbone, left, watch))
        except UNUSABLE as error:
            watch.note(f"{backbone.model} is left out: {error}")
            absent.append(_row(backbone, backbone.model) | {"reason": error.what})
    ranking = _ranked(bout, found)
    ranking["rows"] += absent
    ranking["seconds"] = round(time.perf_counter() - began, 3)
    return ranking | {"words": said_of(ranking)}


def _ranked(bout: Bout, found: Sequence[Contender]) -> dict[str, Any]:
    """Put contenders in order, the best first, each beside the best; and say which to take."""
    task, metric = bout.task, bout.task.metric
    predicted = np.stack([each.predicted for each in found])
    cheap_first = sorted(range(len(found)), key=lambda at: found[at].cost)
    values = task.values(predicted)
    order = sorted(cheap_first, key=lambda at: -values[at])
    chosen = one_standard_error(predicted, task.y, task.resamples, metric, cheap_first)
    rows = [_measured(found[at], found[order[0]], task) for at in order]
    return {
        "rows": rows,
        "best": rows[0]["name"],
        "chosen": rows[order.index(chosen)]["name"],
        "command": _command(bout, found[chosen]),
        "n": len(task),
        "metric": metric,
    }


def _row(backbone: BackboneSpec | None, model: str) -> dict[str, Any]:
    weights = None if backbone is None else backbone.weights
    name = f"{model} (your features)" if backbone is None else model if weights == "auto" else f"{model}={weights}"
    said = {"name": name, "model": model, "weights": weights, "current": backbone is None}
    empty = ("layer", "transform", "dims", "value", "against", "images_per_s", "parameters", "giga_ops", "seconds")
    return said | dict.fromkeys((*empty, "reason"))


def _measured(each: Contender, best: Contender, task: Task) -> dict[str, Any]:
    """Return what the advice has of one network; `against` is by how much it differs from the best, if it is not."""
    gap = None if each is best else paired(task.y, each.predicted, best.predicted, task.resamples, task.metric)
    return _row(each.backbone, each.model) | {
        "layer": each.best.layers[0],
        "transform": each.best.transform,
        "dims": each.best.dims,
        "value": task.judge(each.predicted)[task.metric],
        "against": gap and {"value": gap.mean, "low": gap.low, "high": gap.high},
        "images_per_s": each.images_per_s,
        "parameters": each.parameters,
        "giga_ops": round(each.giga_ops, 4),
        "seconds": each.seconds,
    }


def _command(bout: Bout, chosen: Contender) -> list[str]:
    """Return what to run next: a fit of the features, or the extraction of all images by another network."""
    cache = ["--cache", str(bout.spec.cache)]
    if chosen.backbone is None:
        return ["offshelf", "fit", bout.spec.features, *cache]
    name, spec = beside(bout.features, f"-{chosen.model.rpartition(':')[2]}"), chosen.backbone
    where = ["--root", str(bout.source.root)] if bout.source.root else []
    network = ["-m", spec.model, "--weights", spec.weights, *(["--seed", str(spec.seed)] if spec.seed else [])]
    layers = [word for tap in TAPS for word in ("-l", tap)]
    return ["offshelf", "extract", bout.source.data, "--name", name, *network, *layers, *where, *cache]
