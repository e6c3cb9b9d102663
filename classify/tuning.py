"""What a user may say of fine-tuning, checked in one place. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

from extract.errors import OptionError, unknown
from extract.recipe import MAX_VIEWS

AUTO = "auto"
LINEAR = "linear"
"""The strategy that trains a head alone."""
STRATEGIES = ("tail", "lp-ft", "full", "scratch")
"""Ways to train a network, from the cheapest: its top on cached maps; the probe's head and then everything; everything
from the pretrained weights; everything from fresh ones."""

BN_MODES = ("frozen", "affine", "train", "recalibrate")
RECIPES = ("bit", "kornblith")
OPTIMIZERS = ("sgd", "adamw")
AUGMENTS = ("none", "crop", "flip", "crop+flip")
PRECISIONS = ("fp32", "bf16")
COMPILERS = ("none", "inductor")
PRETRAINED = ("tail", "lp-ft", "full")
MAX_RATE = 1000


@dataclass(frozen=True)
class TuneSpec:
    """How to fine-tune, as the user asked for it; None and `auto` leave it to the size of the data.

    `cut` is the layer up to which `tail` keeps the network as it is; `freeze_until` the same for `lp-ft` and `full`.
    `bn` says what BatchNorm may do above that. `rates` are learning rates to try. `layer_decay` multiplies the rate
    from each block to the one below. `gradual` lets blocks train one after the other, from the top. `wise` mixes the
    weights of the start and the end: a share of the end, or `auto`. `folds` of the probe's are trained without, to be
    scored; `seeds` is how often the last training is repeated. `views` are cached of each image for `tail`. `budget_s`
    are seconds for all of it; `checkpoint_s` how much a kill may cost. `processes` train a network together, one on
    each GPU, or sharing the cores of a CPU.
    """

    cut: str | None = None
    freeze_until: str | None = None
    bn: str = AUTO
    recipe: str = AUTO
    optimizer: str = AUTO
    rates: tuple[float, ...] = ()
    weight_decay: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    augment: str = AUTO
    mixup: float | None = None
    label_smoothing: float | None = None
    ema: bool | None = None
    layer_decay: float = 1.0
    gradual: bool = False
    wise: float | str | None = None
    folds: int = 1
    seeds: int | None = None
    views: int = 4
    budget_s: float | None = None
    checkpoint_s: float = 60.0
    precision: str = AUTO
    compile: str = "none"
    tensorboard: Path | None = None
    processes: int | None = None

    def __post_init__(self) -> None:
        tables = {"bn": BN_MODES, "recipe": RECIPES, "optimizer": OPTIMIZERS, "augment": AUGMENTS}
        for kind, known in {**tables, "precision": PRECISIONS}.items():
            if getattr(self, kind) not in (AUTO, *known):
                unknown(kind, getattr(self, kind), (AUTO, *known), OptionError)
        if self.compile not in COMPILERS:
            unknown("compile", self.compile, COMPILERS, OptionError)
        self._check_numbers()

    def _check_numbers(self) -> None:
        counts = {"steps": self.steps, "batch_size": self.batch_size, "seeds": self.seeds, "views": self.views}
        for name, value in {**counts, "processes": self.processes}.items():
            if value is not None and value < 1:
                raise OptionError(f"{name}={value}", remedy="Take 1 or more")
        if self.views > MAX_VIEWS or self.folds < 0:
            said = f"views={self.views}, folds={self.folds}"
            raise OptionError(said, remedy=f"Take {MAX_VIEWS} views at most, and 0 folds or more")
        shares = {"mixup": self.mixup, "label_smoothing": self.label_smoothing, "wise": self.wise}
        for name, value in shares.items():
            if value not in (None, AUTO) and not 0 <= float(value) <= 1:
                raise OptionError(f"{name}={value}", remedy="Take 0 to 1")
        if wrong := [rate for rate in self.rates if not 0 < rate < MAX_RATE]:
            remedy = f"Take one above 0 and below {MAX_RATE}; 0.001 to 0.1 is usual"
            raise OptionError(f"a learning rate of {wrong[0]:g}", remedy=remedy)
        if not 0 < self.layer_decay <= 1:
            raise OptionError(f"layer_decay={self.layer_decay}", remedy="Take one above 0 and at most 1")
        seconds = (self.checkpoint_s, 1.0 if self.budget_s is None else self.budget_s)
        if min(seconds) <= 0 or (self.weight_decay is not None and self.weight_decay < 0):
            said = f"checkpoint_s={self.checkpoint_s}, budget_s={self.budget_s}, weight_decay={self.weight_decay}"
            raise OptionError(said, remedy="Take times above 0, decays of 0 or more")
