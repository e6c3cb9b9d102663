"""What every protocol is given, what it may be asked for, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from classify.probe.linear import Linear
from extract.errors import FitError, OptionError, unknown
from extract.progress import Progress, Silent
from extract.recipe import Preprocessing

FEWEST_DRAWS = 5
HEADS = ("ridge", "logistic")
"""The heads of few-shot."""
METRICS = ("accuracy", "balanced_accuracy")
"""Top-1 and mean per class, as papers call them."""


@dataclass(frozen=True)
class ProtocolData:
    """The rows of one tap as they were extracted: X (n, D) float32, y (n,) int64 codes of `classes`.

    `validation` (n_train,) bool marks the training rows that the data set publishes as its validation split.
    `y_test` may hold codes beyond the classes, which nothing predicts. `groups_test` (n_test,) codes keep together what
    a bootstrap may not part. `preprocessing` is the recipe's, held against the published one.
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    classes: list[str]
    validation: np.ndarray | None = None
    groups_test: np.ndarray | None = None
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class Options:
    """What a user may ask of a protocol. No `metric` is its first; `shots` are images a class, drawn `draws` times.

    `head` is of few-shot; without `search`, clip takes its default C.
    """

    metric: str | None = None
    shots: int | None = None
    draws: int = FEWEST_DRAWS
    head: str = "ridge"
    search: bool = True

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            unknown("head of few-shot", self.head, HEADS, OptionError)
        if self.draws < FEWEST_DRAWS or (self.shots is not None and self.shots < 1):
            said = f"shots={self.shots}, draws={self.draws}"
            raise OptionError(said, remedy=f"Take 1 image a class or more, and {FEWEST_DRAWS} draws or more")


@dataclass(frozen=True)
class ProtocolResult:
    """What a protocol found: the `metric` on the test rows with its interval, and how it was come by.

    `tried` has one row for each setting; `score` in it is the metric on the rows that chose. `predicted` (n_test,) and
    `scores` (n_test, C) are of the head that is kept; `linear` takes rows after the row-wise map `transform`.
    """

    metric: str
    value: dict[str, float]
    params: dict[str, Any]
    tried: list[dict[str, Any]]
    predicted: np.ndarray
    scores: np.ndarray
    linear: Linear | None = None
    transform: str = "none"
    notes: list[str] = field(default_factory=list)
    protocol: str = ""
    citation: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what metrics.json keeps: all but the arrays."""
        kept = ("protocol", "citation", "metric", "value", "params", "notes", "transform", "tried")
        return {name: getattr(self, name) for name in kept}


Follow = Callable[[ProtocolData, int, Options, Progress], ProtocolResult]


@dataclass(frozen=True)
class Protocol:
    """One published protocol: `words` for a list, and what it has been published with."""

    name: str
    words: str
    citation: str
    follow: Follow
    metrics: tuple[str, ...] = METRICS
    resized: tuple[int, int, str] | None = None
    """Shorter side and crop in pixels and the interpolation of the published features, where they are fixed."""
    shots: bool = False

    def run(
        self, data: ProtocolData, *, seed: int = 0, options: Options | None = None, progress: Progress | None = None
    ) -> ProtocolResult:
        """Follow the protocol. FitError where the data cannot be put through it, OptionError for a metric not of it."""
        options = self._ask(options or Options())
        n_classes = len(np.unique(data.y_train))
        if n_classes < 2 or n_classes != len(data.classes):
            said = f"{n_classes} of {len(data.classes)} classes have training images"
            raise FitError(said, remedy="Give images of two classes or more, some of each")
        # Two BLAS threads slow the many small fits up to fivefold (reference/perf.md 4).
        with threadpool_limits(1):
            result = self.follow(data, seed, options, progress or Silent())
        notes = [*result.notes, *self._other_pixels(data.preprocessing)]
        return replace(result, protocol=self.name, citation=self.citation, notes=notes)

    def _ask(self, options: Options) -> Options:
        """Fill in what was not asked for; OptionError where the protocol has no such thing."""
        metric = options.metric or self.metrics[0]
        if metric not in self.metrics:
            unknown(f"metric of {self.name}", metric, self.metrics, OptionError)
        if options.shots is not None and not self.shots:
            raise OptionError(f"{self.name} draws no images", remedy="Leave the number of images a class out")
        return replace(options, metric=metric)

    def _other_pixels(self, found: Preprocessing | None) -> list[str]:
        if self.resized is None or found is None:
            return []
        ours = (found.resize_size, found.crop_size, found.interpolation)
        if ours == self.resized:
            return []
        said, published = (f"{side} px, crop {crop}, {kind}" for side, crop, kind in (ours, self.resized))
        return [f"the images were resized otherwise ({said}) than published ({published})"]
