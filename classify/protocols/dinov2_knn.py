"""The nearest neighbours of DINOv2 (dinov2/eval/knn.py): rows of length 1, votes weighted by softmax(cosine / 0.07)."""

import numpy as np

from classify.protocols.measure import measure, score
from classify.protocols.protocol import Options, Protocol, ProtocolData, ProtocolResult
from classify.scoring import COSINE_TEMPERATURE, VOTE_FLOOR, unit
from extract.progress import Progress

NEIGHBOURS = (10, 20, 100, 200)
USUAL = 20
""""20 is usually working the best", as its help says."""
CHUNK_ROWS = 512


def follow(data: ProtocolData, seed: int, options: Options, progress: Progress) -> ProtocolResult:
    """Let each number of neighbours vote on the test rows; what counts is the usual one, fixed beforehand."""
    n, metric = len(data.X_train), str(options.metric)
    counts = [k for k in NEIGHBOURS if k <= n] or [n]
    shares = _votes(data, counts, progress)
    tried = [{"k": k, "score": score(data.y_test, shares[k].argmax(axis=1), metric)} for k in counts]
    k = USUAL if USUAL in counts else counts[-1]
    predicted = shares[k].argmax(axis=1)
    value = measure(data, predicted, metric, seed)
    scores = np.log(np.maximum(shares[k], VOTE_FLOOR))
    params = {"k": k, "temperature": COSINE_TEMPERATURE}
    return ProtocolResult(
        metric, value, params, tried, predicted, scores, transform="l2", notes=_notes(tried, k, counts)
    )


def _notes(tried: list[dict[str, float]], k: int, counts: list[int]) -> list[str]:
    best = max(tried, key=lambda row: row["score"])
    said = [f"k = {k} was fixed beforehand; the best on these test images is k = {best['k']}: {best['score']:.1%}"]
    if left := [str(each) for each in NEIGHBOURS if each not in counts]:
        said.append(f"there are fewer training images than k = {', '.join(left)}")
    return said


def _votes(data: ProtocolData, counts: list[int], progress: Progress) -> dict[int, np.ndarray]:
    """Share out the votes of each test row among the classes: -> by k, (n_test, C)."""
    rows, Z = unit(data.X_train.astype(np.float64)), unit(data.X_test.astype(np.float64))
    starts = range(0, len(Z), CHUNK_ROWS)
    progress.start("dinov2-knn", len(starts))
    parts = []
    for start in starts:
        parts.append(_chunk(Z[start : start + CHUNK_ROWS] @ rows.T, data, counts))
        progress.advance(1)
    return {k: np.concatenate([part[k] for part in parts]) for k in counts}


def _chunk(cosines: np.ndarray, data: ProtocolData, counts: list[int]) -> dict[int, np.ndarray]:
    """Add up votes, nearest first: cosines (m, n_train) -> by k, (m, C) that sum to 1."""
    nearest = np.argpartition(-cosines, counts[-1] - 1, axis=1)[:, : counts[-1]]
    nearest = np.take_along_axis(nearest, np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1), axis=1)
    near = np.take_along_axis(cosines, nearest, axis=1)
    weights = np.exp((near - near[:, :1]) / COSINE_TEMPERATURE)
    votes, found, done = np.zeros((len(cosines), len(data.classes))), {}, 0
    for k in counts:
        at = np.arange(len(cosines))[:, None]
        np.add.at(votes, (at, data.y_train[nearest[:, done:k]]), weights[:, done:k])
        found[k], done = votes / votes.sum(axis=1, keepdims=True), k
    return found


DINOV2_KNN = Protocol(
    "dinov2-knn",
    "10, 20, 100 and 200 nearest neighbours by cosine, votes weighted by softmax at 0.07; nothing is fitted",
    "Oquab et al.: DINOv2: Learning Robust Visual Features without Supervision. TMLR 2024 (eval/knn.py)",
    follow,
    resized=(256, 224, "bicubic"),
)
