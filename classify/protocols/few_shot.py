"""A few images of each class, drawn anew several times: big_vision's evaluators/fewshot_lsr.py.

Ridge regression in closed form to targets of -1 and 1: features standardised, a constant of 100 for the bias, so that
it is next to unpenalised, penalty 2^10. Or logistic regression on features as they are, C = 0.316, as CLIP's example.
"""

from collections.abc import Callable

import numpy as np

from classify.probe.linear import Linear
from classify.protocols.clip import DEFAULT_C
from classify.protocols.clip import SOLVER as LOGISTIC
from classify.protocols.draws import draw_shots, too_few
from classify.protocols.logistic import linear_of
from classify.protocols.measure import over_draws, score
from classify.protocols.protocol import Options, Protocol, ProtocolData, ProtocolResult
from extract.progress import Progress

PENALTY = 2.0**10
BIAS = 100.0
STD_MARGIN = 1e-5
DEFAULT_SHOTS = 5


def least_squares(X: np.ndarray, y: np.ndarray, n_classes: int) -> Linear:
    """Solve ridge regression for all classes at once, by n x n equations or by D x D: X (n, D) float64, y (n,)."""
    mean, scale = X.mean(axis=0), X.std(axis=0) + STD_MARGIN
    Z = np.pad((X - mean) / scale, ((0, 0), (0, 1)), constant_values=BIAS)
    Y = 2.0 * (y[:, None] == np.arange(n_classes)) - 1.0
    if len(Z) < Z.shape[1]:
        weights = Z.T @ np.linalg.solve(Z @ Z.T + PENALTY * np.eye(len(Z)), Y)
    else:
        weights = np.linalg.solve(Z.T @ Z + PENALTY * np.eye(Z.shape[1]), Z.T @ Y)
    return Linear(mean, scale, weights[:-1].T, BIAS * weights[-1])


def _logistic(X: np.ndarray, y: np.ndarray, n_classes: int) -> Linear:
    LOGISTIC.fit(model := LOGISTIC.model(), X, y, DEFAULT_C)
    return linear_of(model)


FITS: dict[str, Callable[[np.ndarray, np.ndarray, int], Linear]] = {"ridge": least_squares, "logistic": _logistic}
PARAMS = {"ridge": {"l2": PENALTY}, "logistic": {"C": DEFAULT_C}}


def follow(data: ProtocolData, seed: int, options: Options, progress: Progress) -> ProtocolResult:
    """Draw, fit and test `draws` times, by seeds that count up: the mean over draws, and Student's interval of it."""
    shots, metric = options.shots or DEFAULT_SHOTS, str(options.metric)
    X_test, heads, tried = data.X_test.astype(np.float64), [], []
    progress.start("few-shot", options.draws)
    for draw in range(options.draws):
        rows = draw_shots(data.y_train, shots, seed + draw)
        X = data.X_train[rows].astype(np.float64)
        heads.append(FITS[options.head](X, data.y_train[rows], len(data.classes)))
        predicted = heads[-1].scores(X_test).argmax(axis=1)
        tried.append({"seed": seed + draw, "n": len(rows), "score": score(data.y_test, predicted, metric)})
        progress.advance(1)
    scores = heads[0].scores(X_test)
    params = {"shots": shots, "draws": options.draws, "head": options.head, **PARAMS[options.head]}
    notes = [f"the head that is kept is of the first draw, by seed {seed}", *too_few(data.y_train, shots, data.classes)]
    value = over_draws([row["score"] for row in tried])
    return ProtocolResult(metric, value, params, tried, scores.argmax(axis=1), scores, heads[0], notes=notes)


FEW_SHOT = Protocol(
    "few-shot",
    "so many images a class, drawn 5 times or more: the mean and its interval over the draws",
    "Beyer, Zhai, Kolesnikov: Big Vision (evaluators/fewshot_lsr.py); as in Kolesnikov et al.: Big Transfer. ECCV 2020",
    follow,
    shots=True,
)
