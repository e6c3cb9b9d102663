"""How to train: a recipe by how much data there is, unless the user says otherwise."""

from dataclasses import dataclass

import numpy as np

from classify.tuning import TuneSpec
from extract.spec import Preprocessing


@dataclass(frozen=True)
class Augment:
    """What is drawn of a training image: a resized crop of `scale` (least share of its area, most), a mirror image."""

    crop: bool
    flip: bool
    scale: tuple[float, float] = (0.5, 1.0)


@dataclass(frozen=True)
class Setting:
    """What the rate search varies: the learning rate of the network, and the weight decay."""

    rate: float
    weight_decay: float


@dataclass(frozen=True)
class Plan:
    """All that determines a training but its images, its `Setting` and its seed.

    `head_rate` multiplies the rate for the head, `layer_decay` from each block to the one below. The rate rises over
    `warmup_steps`, and then falls by `schedule`: `cosine` to 0, or to a tenth at each of `drops` (steps). `mixup` is the
    Beta distribution's alpha, 0 for none; `ema` the power of the averaging of weights, 0 for none; `clip_norm` bounds
    the gradient, 0 for no bound. Without `decay_below_head` only the head's weights decay. The validation part is looked
    at every `evaluate_every` steps, and the training ends after `patience` looks without a lower loss.
    """

    recipe: str
    steps: int
    batch_size: int
    settings: tuple[Setting, ...]
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    head_rate: float = 1.0
    layer_decay: float = 1.0
    gradual: bool = False
    warmup_steps: int = 0
    schedule: str = "cosine"
    drops: tuple[int, ...] = ()
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema: float = 0.0
    clip_norm: float = 1.0
    decay_below_head: bool = True
    bn: str = "frozen"
    augment: Augment = Augment(crop=True, flip=True)
    evaluate_every: int = 50
    patience: int = 10
    class_weight: str | None = None


def check_tuning(strategy: str, tune: TuneSpec) -> None:
    """Refuse what a strategy cannot do: OptionError, with what can be asked instead."""
    raise NotImplementedError


def make_plan(
    tune: TuneSpec,
    strategy: str,
    *,
    counts: np.ndarray,
    preset: Preprocessing,
    class_weight: str | None = None,
    flip: bool = True,
) -> tuple[Plan, list[str]]:
    """Choose a recipe by the training images per class, counts (C,), unless `tune` says otherwise: -> it, what to say.

    `flip` says whether mirrored images may be trained on.
    """
    raise NotImplementedError
