"""What training the network may gain over the linear probe: a prior by the probe's error, corrected by measurements.

Everything in shares of the images: 0.012 are 1.2 points.

The prior is what training the whole network mended of the probe's errors on 12 data sets (Salman et al. 2020,
robust-models-transfer, ResNet-18 and 50, fixed features against full fine-tuning): a share of 0.44, in one set 0.1 and
in another 0.8. Left out, a set is missed by 7.2 points on average, and by 7.9 if a line through the gains is taken
instead, -4.3 + 0.65 e points at an error of e %. On data that neither has seen, CIFAR-100 with 25 to 400 images a class
(Hoiem et al. 2021), it is 7.4 and 11.2. The more is wrong, the more it is missed by: by 2 points under 12 %, by 16 over
45 % (root mean squares). Hence a standard deviation of 0.2 e points, and 2.5 more, as those sets are large and none has
an error under 5 %. That is enough to say whether a measurement is worth its price, and no measurement.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from classify.evaluate import Z95

MENDED, MENDED_SD, LEAST_SD = 0.44, 0.2, 0.025
"""Of the probe's errors, by training: the mean, and what its standard deviation grows by, from that of no error on."""
TRANSFER_SD, FAR_SD = 0.06, 0.12
"""Of what one way to train gains, about what another one does: where the last layers suit the images, and elsewhere.

Guesses of ours. Where the last layers do not suit, training these alone says less of training all: on spectrograms a
tail of SqueezeNet came out 24 points below the probe, which took an earlier layer, and the whole network about even.
"""
NARROWEST = 1e-6
"""The least standard deviation of a gain that is known for sure, whose variance rounding may leave below 0."""
TAIL = 0.025
"""What lies beyond each end of an interval."""


@dataclass(frozen=True)
class Measured:
    """The gain over the probe of one way to train, as it was measured, and its standard error."""

    gain: float
    error: float

    @classmethod
    def on(cls, gain: float, error: float, n: int) -> "Measured":
        """Measured on n images, or groups of them, that stand alone.

        A bootstrap has too narrow an error where few are told apart, and none where all are answered alike. Here it is
        no less than where one more were gained and one more lost: sqrt(2) / (n + 2) (Bonett and Price 2012).
        """
        return cls(gain, max(error, math.sqrt(2) / (n + 2)))


def standard_error(low: float, high: float) -> float:
    """Return the standard error that a 95 % interval stands for."""
    return (high - low) / (2 * Z95)


@dataclass(frozen=True)
class Prediction:
    """A gain: normal with `mean` and `sd`, clipped to 0 .. `top`.

    Clipped at 0, as what gains nothing is not taken; at `top`, as no more than the remaining errors can be mended.
    """

    mean: float
    sd: float
    top: float

    def above(self, gain: float) -> float:
        """Return the probability of a gain of more than that, 0 or more."""
        return float(ndtr((self.mean - gain) / self.sd)) if gain < self.top else 0.0

    @property
    def expected(self) -> float:
        """The mean of what was clipped."""
        return self._over(0.0) - self._over(self.top)

    def _over(self, least: float) -> float:
        """Return E max(X - least, 0) = (m - least) Phi(z) + s phi(z), z = (m - least) / s, of the normal X."""
        z = (self.mean - least) / self.sd
        return self.sd * (z * float(ndtr(z)) + float(np.exp(-z * z / 2) / np.sqrt(2 * np.pi)))

    def quantile(self, share: float) -> float:
        """Return what a share of all such gains do not exceed."""
        return float(np.clip(self.mean + self.sd * ndtri(share), 0.0, self.top))

    def as_dict(self, min_gain: float) -> dict[str, float]:
        """Return the expected gain, its 95 % interval, and the probability `p` of more than `min_gain`."""
        low, high = self.quantile(TAIL), self.quantile(1 - TAIL)
        return {"gain": self.expected, "low": low, "high": high, "p": self.above(min_gain)}


def predict(
    error: float,
    measured: Sequence[Measured] = (),
    best: int | None = None,
    transfer_sd: float = TRANSFER_SD,
    asked: int | None = None,
) -> Prediction:
    """Predict what a way to train gains, where the probe's error is `error`.

    Over the probe, or over the one of `measured` whose number is `best`; `asked` is the number of the way itself, None
    where it was not measured. Each measured gain is that of a way that was not, plus how the two differ (normal,
    `transfer_sd`), plus its error; so a linear-Gaussian posterior is exact.
    """
    mean, covariance = _posterior(prior_of(error), measured, transfer_sd)
    # Gain over the best: G, or G + T, less G + T of the best, where T is by how much each differs.
    weights = np.zeros(len(mean))
    weights[0] = float(best is None)
    for number, sign in ((asked, 1.0), (best, -1.0)):
        if number is not None:
            weights[1 + number] += sign
    sd = float(np.sqrt(max(NARROWEST**2, weights @ covariance @ weights)))
    gained = 0.0 if best is None else measured[best].gain
    return Prediction(float(weights @ mean), sd, max(0.0, error - gained))


def prior_of(error: float) -> tuple[float, float]:
    """Return the mean and the standard deviation of the gain, before anything was measured."""
    return MENDED * error, LEAST_SD + MENDED_SD * error


def _posterior(
    prior: tuple[float, float], measured: Sequence[Measured], transfer_sd: float
) -> tuple[np.ndarray, np.ndarray]:
    """Condition (G, T_1 .. T_k) on measurements of G + T_i: -> mean (1 + k,), covariance (1 + k, 1 + k)."""
    k = len(measured)
    mean, P = np.r_[prior[0], np.zeros(k)], np.diag(np.r_[prior[1] ** 2, np.full(k, transfer_sd**2)])
    A = np.c_[np.ones(k), np.eye(k)]
    S = A @ P @ A.T + np.diag([each.error**2 for each in measured])
    gain = np.linalg.solve(S, A @ P).T
    return mean + gain @ (np.array([each.gain for each in measured]) - A @ mean), P - gain @ A @ P
