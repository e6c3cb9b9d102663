"""What is learned of the chosen head from rows that it was not fitted on: probabilities, and bounds to act on."""

from dataclasses import dataclass, replace

import numpy as np

from classify.calibrate import at_bound, fit_temperature, softmax, top_label
from classify.conformal import Abstain, Conformal, fit_abstain, fit_conformal
from classify.search import Found
from classify.solvers import Solver, out_of_fold
from classify.spec import FitSpec
from classify.trials import Task


@dataclass(frozen=True, eq=False)
class Judged:
    """The search, the chosen head's scores out of fold (n, C), and what follows from them."""

    found: Found
    scores: np.ndarray
    temperature: float
    conformal: Conformal
    abstain: Abstain | None
    warnings: list[str]

    @property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities out of fold: (n, C)."""
        return softmax(self.scores / self.temperature)


def judge(spec: FitSpec, task: Task, solver: Solver, found: Found) -> Judged:
    """Score every row out of fold by the chosen head, and calibrate on that."""
    scores = out_of_fold(task, found.best.candidate, found.best.params, solver)
    found = _restated(found, task.judge(scores.argmax(axis=1)), task.metric)
    return calibrated(spec, found, scores, task.y, task.groups)


def calibrated(spec: FitSpec, found: Found, scores: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> Judged:
    """Find what follows from scores out of fold: (n, C), y (n,) codes, groups (n,) codes or None."""
    said, temperature = list(found.notes), fit_temperature(scores, y)
    shares = softmax(scores / temperature)
    if at_bound(temperature, scores):
        said.append(
            f"the temperature is at its bound ({temperature:.3g}): take probabilities as an order, not as shares"
        )
    abstain = None
    if spec.answer_accuracy is not None:
        abstain = fit_abstain(*top_label(shares, y), "accuracy", spec.answer_accuracy)
        if abstain is None:
            said.append(f"no threshold makes the answers right in {spec.answer_accuracy:.1%}: none is abstained from")
    conformal = fit_conformal(shares, y, spec.alpha, groups, spec.seed)
    return Judged(found, scores, temperature, conformal, abstain, said)


def _restated(found: Found, measured: dict[str, dict[str, float]], metric: str) -> Found:
    """Let the winner's score be that of the fits that are calibrated on, which are closer to convergence."""
    naive, step = measured[metric], measured[metric]["value"] - found.selection["naive"]["value"]
    corrected = {name: min(1.0, max(0.0, value + step)) for name, value in found.selection["corrected"].items()}
    selection = {**found.selection, "naive": naive, "corrected": corrected}
    return replace(found, best=replace(found.best, metrics=measured), selection=selection)
