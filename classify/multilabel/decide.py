"""From scores out of fold to decisions: temperatures and thresholds, and what they are worth on rows not seen."""

from dataclasses import dataclass, replace

import numpy as np

from classify.evaluate import Resamples
from classify.folds import Folds
from classify.multilabel.probabilities import fit_temperatures, log_losses, probabilities
from classify.multilabel.thresholds import Thresholds, choose_thresholds
from classify.probe.linear import Linear


@dataclass(frozen=True, eq=False)
class Decisions:
    """How scores become answers: probabilities sigmoid(score / temperature), classes from their threshold on."""

    temperatures: np.ndarray
    thresholds: Thresholds

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """Say which classes are there: scores (n, k) -> (n, k) bool."""
        return probabilities(scores, self.temperatures) >= self.thresholds.values

    def calibrated(self, head: Linear) -> Linear:
        """Fold the temperatures into a head: the sigmoid of its scores is the probability."""
        T = self.temperatures
        return replace(head, coef=head.coef / T[:, None], intercept=head.intercept / T)


def decide(scores: np.ndarray, Y: np.ndarray, resamples: Resamples) -> Decisions:
    """Choose temperatures and thresholds by scores out of fold (n, k) and Y (n, k) bool."""
    temperatures = fit_temperatures(scores, Y)
    return Decisions(temperatures, choose_thresholds(probabilities(scores, temperatures), Y, resamples))


def decide_across(
    scores: np.ndarray, Y: np.ndarray, folds: Folds, resamples: Resamples
) -> tuple[np.ndarray, np.ndarray]:
    """Decide on each fold by what is chosen on the others: -> predicted (n, k) bool, log-losses (n,).

    Measured on the very rows that they were chosen by, thresholds would look better than they are.
    """
    predicted, losses = np.zeros(Y.shape, dtype=bool), np.zeros(len(Y))
    for rest, here in folds:
        chosen = decide(scores[rest], Y[rest], replace(resamples, unit=resamples.unit[rest]))
        predicted[here] = chosen.predicted(scores[here])
        losses[here] = log_losses(scores[here], Y[here], chosen.temperatures)
    return predicted, losses
