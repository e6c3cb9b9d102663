"""A layer that does better than all those that were extracted: which one, by how much, and how to have it too."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from classify.advise.command import command_of
from classify.advise.profile import largest
from classify.evaluate import values_of
from classify.finetune.again import beside, extraction_again
from classify.finetune.images import Source
from classify.spec import AUTO, FitSpec
from classify.statistics import drawn
from classify.trials import Task
from extract.backbones import open_backbone, open_skeleton
from extract.recipe import Preprocessing, Recipe, Tap
from extract.spec import BackboneSpec, ExtractSpec
from extract.store.reader import FeatureSet
from extract.taps import open_trunk

SUFFIX = "-taps"


def held(recipe: Recipe, taps: Sequence[str]) -> list[bool]:
    """Say of each of `taps`, ends of stages, whether a layer that was extracted, and pooled, is that one.

    It is where nothing with weights lies between the two, however they are pooled.
    """
    trunk = open_trunk(open_skeleton(recipe.model))
    reached = {node.name: node.parameters for node in trunk.profile(recipe.preprocessing.crop_size)}
    pairs = zip(recipe.taps, recipe.nodes, strict=True)
    had = {reached[node] for tap, node in pairs if not tap.is_map}
    return [reached[trunk.resolve(Tap.parse(tap).layer)] in had for tap in taps]


def missed(taps: Sequence[str], had: Sequence[bool], codes: np.ndarray, task: Task) -> dict[str, Any] | None:
    """Return the layer that was not extracted and is better than the best that was, codes (L, n) being their answers.

    -> {value, low, high, layer, over}, the gain with an interval that allows for the choice; None where none surely is.
    """
    others, mine = np.flatnonzero(np.logical_not(had)), np.flatnonzero(had)
    if not len(others) or not len(mine):
        return None
    values, draws = values_of(task.y, codes)[task.metric], drawn(codes, task.y, task.resamples, task.metric)
    best = mine[values[mine].argmax()]
    gain, at = largest(values[others] - values[best], draws[others] - draws[best], task.resamples.widening)
    return {**gain, "layer": taps[others[at]], "over": taps[best]} if gain["low"] > 0 else None


def commands(spec: FitSpec, features: FeatureSet, source: Source, tap: str) -> list[list[str]]:
    """Return what to type to have one more tap too, under a name of its own, and for a fit of all of them."""
    asked = extraction_again(features, source.data, source.root, SUFFIX)
    asked = replace(asked, taps=(*asked.taps, tap))
    name = beside(features, SUFFIX)
    return [_extract(asked), command_of(replace(spec, features=name, layers=(), strategy=AUTO))]


def _extract(spec: ExtractSpec) -> list[str]:
    """Write an extraction as a command, with what differs from the defaults."""
    said = ["offshelf", "extract", spec.data, "--name", spec.name, "-m", spec.backbone.model]
    said += ["--weights", spec.backbone.weights, *(word for tap in spec.taps for word in ("-l", tap))]
    said += ["--precision", spec.precision, "--store", spec.store, *_looks(spec.backbone)]
    said += ["--tf32"] * spec.tf32 + ["--decoder", spec.decoder] * (spec.decoder != ExtractSpec.decoder)
    return [*said, *(("--root", str(spec.root)) if spec.root else ()), "--cache", str(spec.cache)]


def _looks(backbone: BackboneSpec) -> list[str]:
    """Write how a network looks at images where that is not how its own weights do."""
    own, wanted = open_backbone(BackboneSpec(backbone.model)).preprocessing, dict(backbone.overrides)
    names = [each.name for each in fields(Preprocessing) if wanted[each.name] != getattr(own, each.name)]
    return [word for name in names for word in (f"--{name.replace('_', '-')}", _written(wanted[name]))]


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
