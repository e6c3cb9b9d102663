import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from tiny_features import blobs, noise
from tiny_task import candidate, tiny_task

from classify.calibrate import nll
from classify.heads import HEADS
from classify.judged import judge
from classify.search import Found
from classify.solvers import out_of_fold, solver_of
from classify.spec import FitSpec
from classify.trials import Trial

LOGISTIC = solver_of(HEADS["logistic"])


def judged(y, X, groups=None, C=1.0, **options):
    """Judge one configuration as if a search had chosen it."""
    task, at = tiny_task(y, {"tap": X}, groups), candidate(X)
    best, said = Trial(at, "logistic", {"C": C}, y, {}, 0.0), dict.fromkeys(("value", "low", "high"), 0.5)
    found = Found(best, [best], [], {"naive": said, "corrected": {**said, "value": 0.4}}, ["said before"])
    return task, judge(FitSpec("tiny", **options), task, LOGISTIC, found)


def test_a_head_under_a_heavy_penalty_gives_shares_too():
    y = np.arange(120) % 3
    X = blobs(y, 10, distance=2.0)
    (_, heavy), (_, usual) = judged(y, X, C=1e-7), judged(y, X)
    assert np.abs(heavy.scores).max() < 1e-4
    assert nll(heavy.scores, y, heavy.temperature) < nll(usual.scores, y, usual.temperature) + 0.1


def test_the_temperature_is_that_of_rows_out_of_fold_and_not_of_those_fitted_on():
    y = np.arange(120) % 3
    X = blobs(y, 60, distance=0.25)  # so many columns that the training rows are learned by heart
    task, found = judged(y, X, C=100.0)
    at, params = found.found.best.candidate, found.found.best.params
    honest = out_of_fold(task, at, params, LOGISTIC)
    np.testing.assert_array_equal(found.scores, honest)

    def loss(log_temperature: float, scores: np.ndarray) -> float:
        return -float(log_softmax(scores / np.exp(log_temperature), axis=1)[np.arange(120), y].mean())

    best = np.exp(minimize_scalar(loss, args=(honest,), bounds=(-4, 6), method="bounded").x)
    assert found.temperature == pytest.approx(best, rel=1e-3)
    everything = [(np.arange(120), np.arange(120))]
    [learned] = LOGISTIC.scores(task, at, params, everything)
    assert found.temperature > 2 * np.exp(minimize_scalar(loss, args=(learned,), bounds=(-4, 6), method="bounded").x)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


def test_a_temperature_at_its_bound_is_told():
    y = np.arange(60) % 2
    _, found = judged(y, noise(60, 40), C=1e6)
    assert found.warnings[0] == "said before"
    assert any("the temperature is at its bound" in said for said in found.warnings)


def test_a_threshold_is_where_the_answers_are_right_as_often_as_asked():
    y = np.arange(200) % 2
    X = blobs(y, 4, distance=0.5)
    _, found = judged(y, X, answer_accuracy=0.95)
    sure = found.probabilities.max(axis=1) >= found.abstain.threshold
    assert 0 < sure.sum() < 200
    assert (found.probabilities.argmax(axis=1) == y)[sure].mean() >= 0.95
    assert judged(y, X)[1].abstain is None


def test_a_threshold_that_there_is_not_is_told():
    y = np.arange(80) % 2
    X = blobs(y, 4)
    X[0] = 3 * X[1]  # the surest answer of all is wrong
    _, found = judged(y, X, answer_accuracy=0.999)
    assert found.abstain is None
    assert any("no threshold makes the answers right in 99.9%" in said for said in found.warnings)


def test_the_sets_miss_as_often_as_asked_and_count_a_group_once():
    y = np.arange(200) % 2
    X = blobs(y, 4, distance=0.5)
    wide, narrow = (judged(y, X, alpha=alpha)[1].conformal for alpha in (0.05, 0.4))
    assert min(wide.thresholds) > max(narrow.thresholds)
    assert (wide.alpha, narrow.alpha) == (0.05, 0.4)
    _, grouped = judged(y, X, groups=np.arange(200) // 4)
    assert (wide.n, grouped.conformal.n) == (200, 50)


def test_the_winners_score_is_that_of_the_rows_it_is_calibrated_on():
    y = np.arange(60) % 2
    task, found = judged(y, blobs(y, 4))
    naive = task.judge(found.scores.argmax(axis=1))["accuracy"]
    assert found.found.selection["naive"] == naive == found.found.best.metrics["accuracy"]
    # As far below it as the search had it.
    assert found.found.selection["corrected"]["value"] == pytest.approx(naive["value"] - 0.1)
