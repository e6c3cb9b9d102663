"""How well each layer tells the classes apart, with what the network has learned and with random weights.

The operational test of whether images are like those that a network was made for: a network far from its own images
does best in its middle, and one that has learned nothing of use does as well with random weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from classify.evaluate import Resamples, evaluate, values_of
from classify.statistics import drawn, one_standard_error, paired

SIMILAR, DIFFERENT, USELESS, UNCLEAR = "similar", "different", "useless", "unclear"

SAME = 0.005
"""By how much an earlier layer may still be better where the last is said to be no worse: half a point."""

TELLS = 0.1
"""What is learned is only called useless where the images would show a gain this large: few images show none at all."""

Interval = dict[str, float]
"""A value with its 95 % interval: {value, low, high}."""


@dataclass(frozen=True)
class TapScore:
    """One layer: its scores with the weights of the features and with random ones, and the gain, paired."""

    layer: str
    dims: int
    pretrained: Interval
    random: Interval
    gain: Interval


@dataclass(frozen=True, eq=False)
class Answered:
    """What the layers of a profile answer out of fold, `codes` (L, m), for positions `at` (m,) of the training part."""

    at: np.ndarray
    codes: np.ndarray


@dataclass(frozen=True)
class Profile:
    """A depth profile: `taps` from shallow to deep, measured by `metric` on the same `n` images.

    `drop` is by how much the best earlier layer is better than the last, and `gain` the largest gain over random
    weights, of one draw: {value, low, high, layer}. `peak` is the earliest layer within one standard error of the best.
    `answered` is what was answered with the weights of the features.
    """

    taps: tuple[TapScore, ...]
    drop: dict[str, Any]
    gain: dict[str, Any]
    peak: str
    n: int
    metric: str
    seconds: float = 0.0
    answered: Answered | None = field(default=None, compare=False)

    @property
    def last(self) -> str:
        """The deepest layer."""
        return self.taps[-1].layer

    @property
    def similarity(self) -> str:
        """Whether the images are similar to those the network knows, different, of no use to it, or unclear."""
        return next((name for name, holds in READINGS.items() if holds(self)), UNCLEAR)

    @property
    def words(self) -> str:
        """The reading in a sentence, with the numbers that it rests on."""
        end, name = self.taps[-1], self.metric.replace("_", " ")
        scores = (
            f"{name} {_share(end.pretrained)} at {end.layer}, the last layer, {_share(end.random)} with random weights"
        )
        drop = f"{self.drop['layer']}, the best before it, {_points(self.drop)} beside the last"
        return f"{SAID[self.similarity]}: {scores}; {drop} ({self.n:,} images)"

    def as_dict(self) -> dict[str, Any]:
        """Return it as the advice in metrics.json has it."""
        said = asdict(replace(self, answered=None)) | {"last": self.last, "similarity": self.similarity}
        del said["answered"]
        return said | {"words": self.words, "taps": [asdict(tap) for tap in self.taps]}


READINGS: dict[str, Callable[[Profile], bool]] = {
    SIMILAR: lambda found: found.drop["high"] <= SAME and found.taps[-1].gain["low"] > 0,
    USELESS: lambda found: found.gain["low"] <= 0 and found.gain["high"] <= TELLS,
    DIFFERENT: lambda found: found.drop["low"] > 0,
}
"""What a profile says, the first that holds; the order matters, as random weights, too, do best in the middle."""

SAID = {
    SIMILAR: "the last layer does no worse than any before it, and what the network has learned helps",
    DIFFERENT: "a layer before the last does better: the last ones are made for other images",
    USELESS: "what the network has learned is of no use here: random weights do as well",
    UNCLEAR: "the images do not tell which layer does best",
}


def make_profile(
    taps: Sequence[tuple[str, int]],
    y: np.ndarray,
    trained: np.ndarray,
    fresh: np.ndarray,
    resamples: Resamples,
    metric: str,
) -> Profile:
    """Compare what all layers answer for the same images, out of fold, with learned and with random weights.

    `taps` are (name, dims), from shallow to deep; y (n,); trained and fresh (L, n) codes.
    """
    values, draws = values_of(y, trained)[metric], drawn(trained, y, resamples, metric)
    others, drawn_others = values_of(y, fresh)[metric], drawn(fresh, y, resamples, metric)
    drop, at = largest(values[:-1] - values[-1], draws[:-1] - draws[-1], resamples.widening)
    gain, where = largest(values - others, draws - drawn_others, resamples.widening)
    names = [name for name, _ in taps]
    return Profile(
        taps=tuple(
            TapScore(name, dims, *_scores(y, mine, theirs, resamples, metric))
            for (name, dims), mine, theirs in zip(taps, trained, fresh, strict=True)
        ),
        drop=_possible(drop) | {"layer": names[at]},
        gain=_possible(gain) | {"layer": names[where]},
        peak=names[one_standard_error(trained, y, resamples, metric, range(len(names)))],
        n=len(y),
        metric=metric,
    )


def largest(values: np.ndarray, draws: np.ndarray, widening: float = 1.0) -> tuple[Interval, int]:
    """Return the largest of k differences with a 95 % interval, and which it is: values (k,), bootstrap draws (k, B).

    The lower end is single-step max-t (Westfall and Young 1993, section 2.5; Romano and Wolf 2005): the largest
    studentised error is taken anew in each draw, so that all differences hold at once. Percentiles of the drawn maximum
    itself would call one of four equal differences positive every other time, as noise has chosen it twice. For the
    upper end no correction is due: whichever is the largest has its own.
    """
    at = int(values.argmax())
    if math.isinf(widening):
        return {"value": float(values[at]), "low": -1.0, "high": 1.0}, at  # of one group, whose draws are all alike
    off = widening * (draws - values[:, None])
    errors = off.std(axis=1, ddof=1)
    studentised = np.divide(off, errors[:, None], out=np.zeros_like(off), where=errors[:, None] > 0)
    low = float((values - np.quantile(studentised.max(axis=0), 0.975) * errors).max())
    high = float((values + np.quantile(off, 0.975, axis=1)).max())
    value = float(values[at])
    return {"value": value, "low": min(low, value), "high": max(high, value)}, at


def _possible(found: Interval) -> Interval:
    """Bound the ends by what shares can differ by: those of few images, widened for a choice, go beyond."""
    return found | {"low": max(-1.0, found["low"]), "high": min(1.0, found["high"])}


def _scores(
    y: np.ndarray, mine: np.ndarray, theirs: np.ndarray, resamples: Resamples, metric: str
) -> tuple[Interval, Interval, Interval]:
    """Measure one layer's answers (n,) with learned and with random weights, and the difference."""
    gain = paired(y, mine, theirs, resamples, metric)
    scores = [evaluate(y, codes, resamples)[metric] for codes in (mine, theirs)]
    return scores[0], scores[1], {"value": gain.mean, "low": gain.low, "high": gain.high}


def _share(found: Interval) -> str:
    return f"{found['value']:z.1%} ({found['low']:z.1%} to {found['high']:z.1%})"


def _points(found: dict[str, Any]) -> str:
    value, low, high = (f"{100 * found[name]:+z.1f}" for name in ("value", "low", "high"))
    return f"{value} points ({low} to {high})"
