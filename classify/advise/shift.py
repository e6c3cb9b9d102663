"""How far what comes into each BatchNorm is from what came in while the network learned: no image of its own needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classify.advise.sample import subset
from classify.finetune.begin import part_of
from classify.finetune.image_examples import ImageExamples
from classify.finetune.images import Source
from classify.finetune.network import norms
from classify.folds import Part
from classify.inputs import Inputs
from classify.probe.memo import Kept, digest, memo
from classify.spec import FitSpec
from extract.devices import pick_device
from extract.errors import FitError
from extract.forward import Extractor, rebuild_extractor
from extract.progress import Watch
from extract.store.folders import FITS

IMAGES = 256
"""With fewer the mean of a channel of a small last map is noise; more only take longer."""


class Moments:
    """Mean and variance of each channel over all maps that were added: (C,) float64."""

    def __init__(self) -> None:
        self.n = 0
        self.mean = self.squares = torch.zeros(())

    def add(self, maps: Tensor) -> None:
        """Add (N, C, ...); joined as Chan, Golub and LeVeque 1983 do it, which loses nothing where a mean is large."""
        found = torch.var_mean(maps, dim=[0, *range(2, maps.dim())], correction=0)  # adds up in float64 by itself
        variance, mean = (moment.double() for moment in found)
        m, apart = maps.numel() // maps.shape[1], mean - self.mean
        self.squares = self.squares + m * variance + apart**2 * (self.n * m / (self.n + m))
        self.mean = self.mean + apart * (m / (self.n + m))
        self.n += m

    @property
    def variance(self) -> Tensor:
        """The variance over all that was added."""
        return self.squares / self.n


def batch_norm_shift(spec: FitSpec, inputs: Inputs, source: Source | None, watch: Watch) -> list[dict[str, Any]]:
    """Measure on IMAGES training images, or two of each class, and list {layer, shift} in order of execution.

    Up to the deepest layer that is compared, in fp32. What was measured before is not again. Raises FitError where it
    cannot be measured: too few images, none at hand, one gone or changed, or no BatchNorm that has learned anything.
    """
    features, train = inputs.features, inputs.data.train
    if len(train) < IMAGES:
        raise FitError(f"{len(train)} training images are fewer than the {IMAGES} that it takes")
    part, layer = part_of(train, subset(train, spec.seed, IMAGES)), inputs.deepest
    kept = Kept(memo(features.folder / FITS), {"features": features.digest, "rows": digest(part.rows), "layer": layer})

    def measure() -> dict[str, Any]:
        if source is None:
            raise FitError("the images are not at hand")
        return {"layers": _measured(spec, inputs, part, source, watch)}

    return kept.remember("batch_norm_shift", measure)["layers"]


def _measured(spec: FitSpec, inputs: Inputs, part: Part, source: Source, watch: Watch) -> list[dict[str, Any]]:
    """Run the network over the images, each proven to be the one that has its features."""
    features, device = inputs.features, pick_device(spec.device)
    recipe = replace(features.recipe, precision="fp32", tf32=False)
    extractor = rebuild_extractor(recipe, features.weights_path, [inputs.deepest], device=str(device))
    check_norms(extractor.cut.module)
    records = source.records.values()
    with ImageExamples(features, records, part.rows, part.y, workers=spec.jobs, device=device) as examples:
        watch.start("inputs of BatchNorm", len(part))
        batches = (batch.x for batch in examples.plain(np.arange(len(part)), batch_size=extractor.batch_size))
        return shifts(extractor, _counted(batches, watch))


def _counted(batches: Iterator[Tensor], watch: Watch) -> Iterator[Tensor]:
    for pixels in batches:
        yield pixels
        watch.advance(len(pixels))


def shifts(extractor: Extractor, batches: Iterator[Tensor]) -> list[dict[str, Any]]:
    """Run the network over pixels (N, 3, S, S) uint8, and list the shift of each BatchNorm's inputs."""
    with watched(extractor.cut.module) as seen:
        for pixels in batches:
            extractor.exact(pixels)
    found = norms(extractor.cut.module)
    return [{"layer": name, "shift": shift(found[name], moments)} for name, moments in seen.items()]


@contextmanager
def watched(network: nn.Module) -> Iterator[dict[str, Moments]]:
    """Take the moments of what comes into each BatchNorm, by name in order of execution; nothing else changes."""
    seen: dict[str, Moments] = {}

    def look(name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.setdefault(name, Moments()).add(inputs[0])

    hooks = [norm.register_forward_pre_hook(partial(look, name)) for name, norm in norms(network).items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def shift(norm: _BatchNorm, moments: Moments) -> float:
    """Return the mean over the channels of sqrt((m - m0)^2 + (s - s0)^2) / s0, m0 and s0 being the running statistics.

    The 2-Wasserstein distance of two normal distributions, in standard deviations of the one that was learned from
    (Schneider et al. 2020 measure shifts by it). To both variances the layer's own `eps` is added, as it does: channels
    that never say anything have a variance of as good as 0.
    """
    assert norm.running_mean is not None  # noqa: S101 check_norms has seen to it
    assert norm.running_var is not None  # noqa: S101
    mean, spread = norm.running_mean.double(), (norm.running_var.double() + norm.eps).sqrt()
    apart = torch.hypot(moments.mean - mean, (moments.variance + norm.eps).sqrt() - spread)
    return float((apart / spread).mean())


def check_norms(network: nn.Module) -> None:
    """Raise FitError for a network without BatchNorms that have statistics, or whose statistics no image has moved."""
    found = list(norms(network).values())
    if not found or any(norm.running_mean is None for norm in found):
        raise FitError("the network has no BatchNorm with statistics of its own")
    if all(bool((norm.running_mean == 0).all() and (norm.running_var == 1).all()) for norm in found):
        raise FitError("the network's BatchNorms have the statistics they begin with: it was never trained")
