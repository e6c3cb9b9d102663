"""What is trained how, unless the user says otherwise: by the number of training images, or as it was published.

Where the numbers come from; what has no name behind it is a starting point of ours, which the search over rates
corrects. docs/finetuning.md shows the same as a table.

- Boundaries: fine-tuning is even with a linear probe at 25 images a class, and wins by 8.5 points at 50 and by 13.5 at
  400 (Hoiem et al. 2021, CIFAR-100, ResNet-18): below 50 little is trained, and not for long.
- Steps: few 300 to 500 (BiT-HyperRule: 500); some at least 20 epochs (LP-FT, Kumar et al. 2022); many 10,000, at most
  150 epochs (Salman et al. 2020) and at least 10 (BiT-HyperRule: 20,000 steps of 512 for over 500,000 images).
  Scratch five times as many, at most 200 epochs (as is usual for CIFAR: kuangliu/pytorch-cifar).
- Batch: 64 (Salman; Ericsson et al. 2021), 32 below 1,000 images. Beyond these the rate follows it (Goyal et al. 2017).
- Rates: tail and lp-ft within LP-FT's sweep of 3e-5 to 1e-2; full between Salman's 1e-3 and 1e-2, a notch lower for
  few; scratch below CIFAR's 0.1 for 128 images. A head that begins at zero learns 10 times as fast (tllib: the network
  at 0.1 of the head's rate), one that begins as the probe as fast as the rest (LP-FT).
- Weight decay: few 1e-4, the head alone; some 5e-4 (Salman); many 0, 1e-5, 1e-4 over the rate (Kornblith et al. 2019,
  without the ends of their grid); scratch 5e-4 (pytorch-cifar).
- Mixup 0.1 for many (BiT-HyperRule, from 20,000 images). Warm-up 5 % (BiT-HyperRule: 500 of 10,000). Crops of half the
  area at least. Averaging of weights with power 3/4 (timm's ModelEmaV3, for short trainings); gradients up to 1
  (AutoGluon). BatchNorm learns where all is trained on many images, in batches of 32 and more, or from scratch.
- AdamW: around 1e-4, weight decay 1e-3, warm-up 10 % (AutoGluon); scratch around 1e-3 (Kingma and Ba 2015).
- bit: BiT-HyperRule (Kolesnikov et al. 2020, big_transfer/bit_hyperrule.py); kornblith: Kornblith et al. 2019 as in
  linusericsson/ssl-transfer, finetune.py, with its 4 rates, 5 decays, 5,000 steps of 64 images.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

PLAIN_BATCHES = (32, 64)
"""Images in a step for which the rates below are meant, for a small set and for others."""
SMALL_SET = 1000
LARGE_SET = 20_000
"""Images from which they are many, however few a class has: BiT-HyperRule's first boundary."""
FEW, SOME = 50, 500
"""Images a class, below which they are few, and up to which they are some."""
SCRATCH_STEPS, SCRATCH_EPOCHS = 5, 200
FEWEST_STEPS = 500
FRESH_HEAD = 10.0
NORM_BATCH = 32
"""Images in a step from which BatchNorm's own statistics of it are worth something."""
BIT_RATE, BIT_BATCH = 0.003, 512


@dataclass(frozen=True)
class Images:
    """A training part: `n` images of `n_classes`, and what share of its area the preset's centre crop keeps."""

    n: int
    n_classes: int
    crop_share: float = 1.0

    @property
    def per_class(self) -> float:
        """Images a class, on average."""
        return self.n / self.n_classes


@dataclass(frozen=True)
class Basis:
    """What a recipe says. `warmup` and `drops` are shares of the steps; without drops the rate falls by a cosine.

    `decays` are divided by the rate where `over_rate`; the rest as in `Plan`. `words` are for people.
    """

    words: str
    batch_size: int
    steps: int
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    over_rate: bool = False
    decay_below_head: bool = True
    nesterov: bool = True
    head_rate: float = 1.0
    warmup: float = 0.05
    drops: tuple[float, ...] = ()
    mixup: float = 0.0
    ema: float = 0.75
    clip_norm: float = 1.0
    bn: str = "frozen"
    scale: tuple[float, float] = (0.5, 1.0)


@dataclass(frozen=True)
class Regime:
    """What is right for so many images: rates by strategy, and steps by how many of them make an epoch."""

    words: str
    rates: Mapping[str, tuple[float, ...]]
    decays: tuple[float, ...]
    steps: Callable[[float], float]
    over_rate: bool = False
    decay_below_head: bool = True
    mixup: float = 0.0
    norm_learns: bool = False


LOW, MIDDLE, HIGH = (1e-4, 3e-4, 1e-3), (3e-4, 1e-3, 3e-3), (1e-3, 3e-3, 1e-2)
REGIMES = {
    "few": Regime(
        f"few images a class (under {FEW})",
        {"tail": (3e-4, 1e-3), "lp-ft": LOW, "full": MIDDLE},
        (1e-4,),
        lambda epoch: min(max(100 * epoch, 300), 500),
        decay_below_head=False,
    ),
    "some": Regime(
        f"some images a class ({FEW} to {SOME})",
        {"tail": MIDDLE, "lp-ft": MIDDLE, "full": HIGH},
        (5e-4,),
        lambda epoch: max(FEWEST_STEPS, 20 * epoch),
    ),
    "many": Regime(
        f"many images (over {SOME} a class, or {LARGE_SET:,})",
        {"tail": HIGH, "lp-ft": HIGH, "full": HIGH},
        (0.0, 1e-5, 1e-4),
        lambda epoch: max(FEWEST_STEPS, min(10_000, 150 * epoch), 10 * epoch),
        over_rate=True,
        mixup=0.1,
        norm_learns=True,
    ),
}
SCRATCH_RATES, SCRATCH_DECAYS = (1e-2, 3e-2, 1e-1), (5e-4,)
ADAM_RATES, ADAM_FRESH = (3e-5, 1e-4, 3e-4), (3e-4, 1e-3, 3e-3)
ADAM_DECAYS, ADAM_WARMUP = (1e-3,), 0.1


def regime_of(images: Images) -> Regime:
    """Say whether images are few, some or many."""
    if images.n >= LARGE_SET or images.per_class > SOME:
        return REGIMES["many"]
    return REGIMES["few" if images.per_class < FEW else "some"]


def by_size(images: Images, strategy: str, batch_size: int | None) -> Basis:
    """Take the defaults for so many images."""
    regime = regime_of(images)
    batch = batch_size or min(PLAIN_BATCHES[images.n >= SMALL_SET], images.n)
    steps = round(regime.steps(images.n / batch))
    if strategy == "scratch":
        return _fresh(regime, steps, max(FEWEST_STEPS, SCRATCH_EPOCHS * images.n / batch), batch, batch_size)
    return Basis(
        regime.words,
        batch,
        steps,
        scaled(regime.rates[strategy], batch_size),
        regime.decays,
        over_rate=regime.over_rate,
        decay_below_head=regime.decay_below_head,
        head_rate=FRESH_HEAD if strategy == "full" else 1.0,
        mixup=regime.mixup,
        bn="train" if regime.norm_learns and strategy == "full" and batch >= NORM_BATCH else "frozen",
    )


def _fresh(regime: Regime, steps: int, most: float, batch: int, asked: int | None) -> Basis:
    return Basis(
        regime.words,
        batch,
        min(SCRATCH_STEPS * steps, round(most)),
        scaled(SCRATCH_RATES, asked),
        SCRATCH_DECAYS,
        mixup=regime.mixup,
        bn="train",
    )


def scaled(rates: tuple[float, ...], batch_size: int | None) -> tuple[float, ...]:
    """Scale rates that hold for 32 to 64 images a step to what the user asked for, in proportion."""
    least, most = PLAIN_BATCHES
    return tuple(rate * (batch_size or most) / min(max(batch_size or most, least), most) for rate in rates)


def with_adamw(basis: Basis, strategy: str) -> Basis:
    """Replace what belongs to SGD; its rates do not follow the batch, as its steps do not grow with the gradient."""
    return replace(
        basis,
        rates=ADAM_FRESH if strategy == "scratch" else ADAM_RATES,
        decays=ADAM_DECAYS,
        over_rate=False,
        decay_below_head=True,
        warmup=ADAM_WARMUP,
    )


def bit(images: Images, strategy: str, batch_size: int | None) -> Basis:
    """Follow BiT-HyperRule; its images are cropped from ones a little larger, as the preset's centre crop is."""
    _, steps, warmup, drops = next(rule for rule in BIT_RULES if images.n < rule[0])
    batch = batch_size or min(BIT_BATCH, images.n)
    return Basis(
        "BiT-HyperRule (Kolesnikov et al. 2020)",
        batch,
        steps,
        (BIT_RATE * batch / BIT_BATCH,),
        (0.0,),
        nesterov=False,
        warmup=warmup,
        drops=drops,
        mixup=0.0 if images.n < LARGE_SET else 0.1,
        ema=0.0,
        clip_norm=0.0,
        bn=by_size(images, strategy, batch).bn,
        scale=(images.crop_share, images.crop_share),
    )


BIT_RULES: tuple[tuple[float, int, float, tuple[float, ...]], ...] = (
    (LARGE_SET, 500, 0.2, (0.4, 0.6, 0.8)),
    (500_000, 10_000, 0.05, (0.3, 0.6, 0.9)),
    (float("inf"), 20_000, 0.025, (0.3, 0.6, 0.9)),
)
"""Images below which it holds; steps, and of them the share of the warm-up, and when the rate falls to a tenth."""


def kornblith(images: Images, strategy: str, batch_size: int | None) -> Basis:
    """Take the grid of Kornblith et al. 2019, in the size and for the steps of Ericsson et al. 2021."""
    return Basis(
        "the grid of Kornblith et al. 2019",
        batch_size or min(64, images.n),
        5000,
        (1e-4, 1e-3, 1e-2, 1e-1),
        (0.0, 1e-6, 1e-5, 1e-4, 1e-3),
        over_rate=True,
        warmup=0.0,
        ema=0.0,
        clip_norm=0.0,
        bn="train",
        scale=(0.08, 1.0),
    )


RECIPES: dict[str, Callable[[Images, str, int | None], Basis]] = {"auto": by_size, "bit": bit, "kornblith": kornblith}
