"""How to train: a recipe by how much data there is, unless the user says otherwise."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from classify.finetune.recipes import NORM_BATCH, RECIPES, Basis, Images, with_adamw
from classify.tuning import AUTO, STRATEGIES, TuneSpec
from extract.errors import OptionError, unknown
from extract.recipe import Preprocessing

LOOKS = (10, 25)
"""At the validation part in a training: so many that it can stop in time, and so few that 10 of them, its patience,
last until the rate has begun to fall; else what needs a high rate at first would be given up."""
TINY = 10
"""Images a class, below which a network is hardly worth training."""
EMA_POWER = 0.75
T = TypeVar("T")


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
    `warmup_steps`, and then falls by `schedule`: `cosine` to 0, or to a tenth at each of `drops` (steps). `mixup` is
    the Beta distribution's alpha, 0 for none; `ema` the power of the averaging of weights, 0 for none; `clip_norm`
    bounds the gradient, 0 for no bound. Without `decay_below_head` only the head's weights decay. With
    `decay_over_rate` the decays of `settings` are some number over the rate, and that of another rate is so, too. The
    validation part is looked at every `evaluate_every` steps, and the training ends after `patience` looks without a
    lower loss. Weights that are `fresh` are worth nothing to begin with, and the averages of the first steps little
    more (their loss rises for hundreds of steps, and then falls far below): such a start is never what is kept, the
    training goes to its end, and rates are compared by what they have learned of the training part.
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
    decay_over_rate: bool = False
    bn: str = "frozen"
    augment: Augment = Augment(crop=True, flip=True)
    evaluate_every: int = 50
    patience: int = 10
    fresh: bool = False
    class_weight: str | None = None


def check_tuning(strategy: str, tune: TuneSpec) -> None:
    """Refuse what a strategy cannot do: OptionError, with what can be asked instead."""
    if strategy not in STRATEGIES:
        unknown("strategy", strategy, STRATEGIES, OptionError)
    for clashes, what, remedy in _clashes(strategy, tune):
        if clashes:
            raise OptionError(what, where=f"strategy {strategy}", remedy=remedy)


def _clashes(strategy: str, tune: TuneSpec) -> Iterator[tuple[bool, str, str]]:
    tail, scratch, published = strategy == "tail", strategy == "scratch", tune.recipe != AUTO
    yield bool(tune.cut) and not tail, "only a tail is cut off", "Take --freeze-until, or --strategy tail"
    yield bool(tune.freeze_until) and tail, "the trunk of a tail is frozen up to its cut", "Take --cut"
    yield bool(tune.freeze_until) and scratch, "fresh layers that never train are noise", "Leave --freeze-until out"
    yield tune.views != TuneSpec.views and not tail, "only a tail has views of an image cached", "Leave --views out"
    yield scratch and tune.bn not in (AUTO, "train"), "fresh BatchNorm has no statistics", "Leave --bn out"
    yield scratch and tune.gradual, "fresh layers train from the first step", "Leave --gradual out"
    yield scratch and tune.layer_decay < 1, "fresh layers train at one rate", "Leave --layer-decay out"
    mixes, why = tune.wise is not None, "there is no fitted start to mix with the end"
    yield mixes and strategy in ("full", "scratch"), why, "Leave --wise out, or take --strategy lp-ft or tail"
    yield published and tune.optimizer == "adamw", f"the recipe {tune.recipe} is one for SGD", "Leave --optimizer out"
    yield scratch and tune.recipe == "bit", "BiT-HyperRule is for pretrained weights", "Take --recipe auto or kornblith"
    learns = tune.bn == "train" or (tune.bn == AUTO and (scratch or tune.recipe == "kornblith"))
    yield learns and tune.batch_size == 1, "one image has no statistics", "Take --batch-size 2 or more"


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

    `flip` says whether mirrored images may be trained on. Raises OptionError for what `check_tuning` refuses.
    """
    check_tuning(strategy, tune)
    images = Images(int(counts.sum()), int((counts > 0).sum()), (preset.crop_size / preset.resize_size) ** 2)
    basis = RECIPES[tune.recipe](images, strategy, tune.batch_size)
    if tune.optimizer == "adamw":
        basis = with_adamw(basis, strategy)
    plan = _overridden(tune, basis, flip)
    every = pace(plan.steps, images.n / plan.batch_size)
    plan = replace(plan, evaluate_every=every, fresh=strategy == "scratch", class_weight=class_weight)
    return plan, list(_notes(tune, plan, basis, images, flip))


def _overridden(tune: TuneSpec, basis: Basis, flip: bool) -> Plan:
    steps = _or(tune.steps, basis.steps)
    return Plan(
        recipe=tune.recipe,
        steps=steps,
        batch_size=basis.batch_size,
        settings=_settings(tune, basis),
        optimizer="sgd" if tune.optimizer == AUTO else tune.optimizer,
        nesterov=basis.nesterov,
        head_rate=basis.head_rate,
        layer_decay=tune.layer_decay,
        gradual=tune.gradual,
        warmup_steps=round(basis.warmup * steps),
        schedule="drops" if basis.drops else "cosine",
        drops=tuple(round(share * steps) for share in basis.drops),
        label_smoothing=_or(tune.label_smoothing, 0.0),
        mixup=_or(tune.mixup, basis.mixup),
        ema=basis.ema if tune.ema is None else EMA_POWER * tune.ema,
        clip_norm=basis.clip_norm,
        decay_below_head=basis.decay_below_head or tune.weight_decay is not None,
        decay_over_rate=basis.over_rate and tune.weight_decay is None,
        bn=basis.bn if tune.bn == AUTO else tune.bn,
        augment=_augment(tune.augment, basis.scale, flip),
    )


def _or(asked: T | None, default: T) -> T:
    return default if asked is None else asked


def _settings(tune: TuneSpec, basis: Basis) -> tuple[Setting, ...]:
    rates = sorted(set(tune.rates)) or sorted(basis.rates)
    if tune.weight_decay is not None:
        return tuple(Setting(rate, tune.weight_decay) for rate in rates)
    pairs = [(rate, decay / rate if basis.over_rate else decay) for rate in rates for decay in basis.decays]
    return tuple(Setting(rate, rounded(decay)) for rate, decay in pairs)


def rounded(number: float) -> float:
    """Return a number as people write it: 0.01, and not 0.009999999999999998."""
    return float(f"{number:.6g}")


def _augment(asked: str, scale: tuple[float, float], flip: bool) -> Augment:
    if asked == AUTO:
        return Augment(True, flip, scale)
    return Augment("crop" in asked, "flip" in asked, scale)


def pace(steps: int, asked: float) -> int:
    """Return after how many steps to look: as asked, but 10 to 25 times in so many steps."""
    fewest, most = LOOKS
    return round(min(max(asked, math.ceil(steps / most)), max(1, steps // fewest)))


def shorten(plan: Plan, steps: int) -> Plan:
    """Do the same in fewer steps: warm-up and drops move with them, and the number of looks is kept in bounds."""
    share = steps / plan.steps
    return replace(
        plan,
        steps=steps,
        warmup_steps=round(plan.warmup_steps * share),
        drops=tuple(round(drop * share) for drop in plan.drops),
        evaluate_every=pace(steps, plan.evaluate_every),
    )


def in_epochs(plan: Plan, n: int) -> str:
    """Put the length of a training on `n` images into words."""
    epochs = plan.steps * plan.batch_size / n
    return f"{plan.steps:,} steps of {plan.batch_size} images, {epochs:,.{0 if epochs >= 10 else 1}f} epochs of {n:,}"


def _notes(tune: TuneSpec, plan: Plan, basis: Basis, images: Images, flip: bool) -> Iterator[str]:
    """Say what the plan means, and what about it may surprise."""
    rates = ", ".join(f"{rate:.3g}" for rate in sorted({setting.rate for setting in plan.settings}))
    yield f"{basis.words}: {in_epochs(plan, images.n)}; rates {rates}"
    if images.per_class < TINY:
        yield f"{images.per_class:.1f} images a class: so few seldom teach a network more than a linear probe"
    if plan.bn == "train" and plan.batch_size < NORM_BATCH:
        yield f"BatchNorm learns from {plan.batch_size} images at a time: its statistics are rough below {NORM_BATCH}"
    if plan.augment.flip and not flip:
        yield "images are mirrored as asked, although a test says that it hurts"
    if tune.recipe == "bit":
        yield "BiT-HyperRule was published for GroupNorm and images of 128 or 480 pixels: here both stay the network's"
    if tune.recipe == "bit" and tune.batch_size is None:
        yield "a smaller --batch-size is cheaper, and the rate follows it"
    if tune.recipe == "kornblith" and len(plan.settings) > 1:
        yield f"the {len(plan.settings)} settings are searched by halving, and not each to the end"
