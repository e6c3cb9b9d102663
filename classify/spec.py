"""One fit as the user asked for it, checked in one place."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classify.evaluate import METRICS
from classify.heads import find_head
from classify.protocols import PROTOCOLS
from classify.tuning import LINEAR, TuneSpec
from classify.tuning import STRATEGIES as TUNED
from extract.errors import OptionError, unknown
from extract.spec import EngineSpec, available_cores

AUTO = "auto"
STRATEGIES = (LINEAR, *TUNED, AUTO)
BUDGET_S = 600.0
"""What the strategy `auto` may take beyond the probe, unless `tune` says otherwise."""
HEAD = "logistic"
DEVICES = ("auto", "cpu", "cuda")
DUPLICATES = ("auto", "always", "off")
MAX_SEED = 2**32 - 1
"""The largest that scikit-learn takes."""
FEWEST_DRAWS = 5
FOLDS, ALPHA = 5, 0.1


@dataclass(frozen=True)
class FitSpec:
    """One fit. No `layers`: all pooled taps of the features; no `out`: runs/NAME.

    `metric` auto is accuracy, or balanced accuracy where classes are imbalanced. `group` is auto, none, or a pattern
    over the ids. `params` are values to try of a head by import path. `alpha` is the share of prediction sets that may
    miss the truth, `answer_accuracy` what the answers that are given shall reach, the others being abstained from.
    `data` and `root` say where the images are: for thumbnails, for the proof of near-duplicates, and for a `strategy`
    that trains the network itself, as `tune` has it. The strategy `auto` finds out which one pays: one that gains more
    than `min_gain` of the images. Where no `strategy` is named it is `auto`, and `linear` where another head, a
    protocol or several labels an image are asked for, which `auto` cannot follow. `engine` is what trains networks, and
    searches heads of scikit-learn: this machine, or a cluster of Ray.
    """

    features: str
    cache: Path = Path("cache")
    layers: tuple[str, ...] = ()
    head: str = HEAD
    params: dict[str, list[Any]] = field(default_factory=dict)
    class_weight: str | None = None
    strategy: str = ""
    protocol: str | None = None
    few_shot: int | None = None
    draws: int = FEWEST_DRAWS
    metric: str = AUTO
    cv: int = FOLDS
    group: str = AUTO
    duplicates: str = AUTO
    labels: Path | None = None
    multi_label: bool = False
    hold_out: float = 0.2
    alpha: float = ALPHA
    answer_accuracy: float | None = None
    data: str | None = None
    root: Path | None = None
    seed: int = 0
    device: str = AUTO
    out: Path | None = None
    jobs: int = field(default_factory=available_cores)
    command: tuple[str, ...] = ()
    tune: TuneSpec = field(default_factory=TuneSpec)
    engine: EngineSpec = field(default_factory=EngineSpec)
    min_gain: float = 0.01

    def __post_init__(self) -> None:
        named = bool(self.strategy)
        if not named:
            object.__setattr__(self, "strategy", LINEAR if self._of_heads else AUTO)
        tables = {"strategy": STRATEGIES, "metric": (AUTO, *METRICS), "device": DEVICES, "duplicates": DUPLICATES}
        for kind, known in tables.items():
            if getattr(self, kind) not in known:
                unknown(kind, getattr(self, kind), known, OptionError)
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            unknown("protocol", self.protocol, PROTOCOLS, OptionError)
        self._check_numbers()
        self._check_combinations(named)

    @property
    def published(self) -> str | None:
        """Name of the protocol to follow; images a class are drawn by one, too."""
        return self.protocol or ("few-shot" if self.few_shot else None)

    @property
    def _of_heads(self) -> str:
        """Name the options that were given and mean nothing where a network is trained, "" if none was."""
        others = {"--head": self.head != HEAD, "--protocol": self.protocol, "--few-shot": self.few_shot}
        return ", ".join(name for name, given in {**others, "--multi-label": self.multi_label}.items() if given)

    @property
    def budget_s(self) -> float:
        """Seconds that the strategy `auto` may take beyond the probe."""
        return BUDGET_S if self.tune.budget_s is None else self.tune.budget_s

    def _check_numbers(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise OptionError(f"seed={self.seed}", remedy=f"Take 0 to {MAX_SEED}")
        if self.cv < 2 or self.jobs < 1 or not 0 < self.hold_out <= 0.5:
            said = f"cv={self.cv}, jobs={self.jobs}, hold_out={self.hold_out}"
            raise OptionError(said, remedy="Take 2 folds and 1 job or more, and hold out at most half (0.5)")
        asked = self.answer_accuracy
        if not 0 < self.alpha < 1 or not (asked is None or 0 < asked < 1):
            said = f"alpha={self.alpha}, answer_accuracy={self.answer_accuracy}"
            raise OptionError(said, remedy="Take shares between 0 and 1 for both")
        if not 0 <= self.min_gain < 1:
            raise OptionError(f"min_gain={self.min_gain}", remedy="Take a share of the images: 0.01 for one point")
        if self.draws < FEWEST_DRAWS or (self.few_shot is not None and self.few_shot < 1):
            said = f"few_shot={self.few_shot}, draws={self.draws}"
            raise OptionError(said, remedy=f"Take 1 image a class or more, and {FEWEST_DRAWS} draws or more")

    def _check_combinations(self, named: bool) -> None:
        head = find_head(self.head, self.params)
        if self.published and self.multi_label:
            said = f"--multi-label and the protocol {self.published!r} exclude each other"
            raise OptionError(said, remedy="Leave one of them out")
        if self.published and (self.head != HEAD or self.class_weight or self.answer_accuracy):
            said = f"the protocol {self.published!r} brings its own head, without weights of classes or abstaining"
            raise OptionError(said, remedy="Leave --head, --class-weight and --answer-accuracy out")
        if self.published and ((self.cv, self.alpha) != (FOLDS, ALPHA) or self.duplicates == "always"):
            said = f"the protocol {self.published!r} has splits of its own, and neither prediction sets nor duplicates"
            raise OptionError(said, remedy="Leave --cv, --alpha and --duplicates out")
        if self.multi_label and self.alpha != ALPHA:
            raise OptionError("there are no prediction sets of several labels", remedy="Leave --alpha out")
        self._check_strategy(named)
        if self.class_weight and not head.weighs:
            raise OptionError(f"{self.head} cannot weigh classes", remedy="Leave --class-weight out, or take logistic")

    def _check_strategy(self, named: bool) -> None:
        """Refuse what means nothing where the network itself is trained, and settings of a training without one."""
        asked = self._of_heads
        if self.strategy == LINEAR and self.tune != TuneSpec():
            said = "the strategy 'linear'" if named else f"{asked} goes with the strategy 'linear', which"
            remedy = f"Leave {'--strategy linear' if named else asked} out, or the settings of fine-tuning"
            raise OptionError(f"{said} trains nothing but a head", remedy=remedy)
        if self.strategy != LINEAR and asked:
            said = f"the strategy {self.strategy!r} trains one label an image, with the head {HEAD} beside it"
            raise OptionError(said, remedy=f"Leave {asked} out, or take --strategy {LINEAR}")
        if self.strategy == AUTO and self.tune.folds < 1:
            said = "the strategy 'auto' compares what is trained on folds that were left out"
            raise OptionError(said, remedy="Take --folds-trained 1 or more")
