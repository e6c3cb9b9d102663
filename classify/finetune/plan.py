"""How to train: a recipe by how much data there is, unless the user says otherwise."""

from dataclasses import dataclass


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
    the gradient. The validation part is looked at every `evaluate_every` steps, and the training ends after `patience`
    looks without a lower loss.
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
    bn: str = "frozen"
    augment: Augment = Augment(crop=True, flip=True)
    evaluate_every: int = 50
    patience: int = 10
    class_weight: str | None = None
