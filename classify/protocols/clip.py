"""The linear probe of CLIP: logistic regression by L-BFGS, penalties searched by spans that halve around the best.

Appendix A of the paper; ties and the ends of the grid as in ELEVATER (full_model_finetune.py), its grid by integers.
"""

from collections.abc import Callable
from typing import Any

from classify.protocols.logistic import Probe, Solver, make_probe
from classify.protocols.parts import make_parts, numpy_share
from classify.protocols.protocol import Options, Protocol, ProtocolData, ProtocolResult
from extract.progress import Progress

POINTS = 97
"""Penalties 1e-6 to 1e6, 8 to a decade."""
START_STEP = 16
SPANS = (8, 4, 2, 1)
DEFAULT_C = 0.316
SOLVER = Solver(max_iter=1000)


def C_at(index: int) -> float:  # noqa: N802 C is the field's name
    """Return C = 1 / penalty at a point of the grid, penalties ascending: 0 -> 1e6, 96 -> 1e-6."""
    return 10.0 ** (6 - index / 8)


def search(score_at: Callable[[int], float]) -> int:
    """Find the best of the 97 points: 7 of them, then both sides of the best at 8, 4, 2 and 1; the first of equals."""
    scores = {index: score_at(index) for index in range(0, POINTS, START_STEP)}
    best = max(scores, key=scores.__getitem__)
    for span in SPANS:
        sides = [index for index in (best - span, best + span) if 0 <= index < POINTS]
        scores = {best: scores[best]} | {index: score_at(index) for index in sides}
        best = max(scores, key=scores.__getitem__)
    return best


def follow(data: ProtocolData, seed: int, options: Options, progress: Progress) -> ProtocolResult:
    """Choose C, or take the default; refit on all training rows, and measure on the test."""
    probe = make_probe(data, SOLVER, options, seed)
    if not options.search:
        return probe.conclude(DEFAULT_C, [], ["C was not searched: the default of the published example"])
    return _searched(probe, seed, progress)


def _searched(probe: Probe, seed: int, progress: Progress) -> ProtocolResult:
    words = f"20 % of the training images, drawn by seed {seed} (the paper does not say how it draws them)"
    parts = make_parts(probe.data, numpy_share(0.2, seed), words)
    tried: list[dict[str, Any]] = []

    def score_at(index: int) -> float:
        tried.append(probe.try_C(C_at(index), parts))
        progress.advance(1)
        return tried[-1]["score"]

    progress.start("clip", POINTS // START_STEP + 1 + 2 * len(SPANS))
    best = C_at(search(score_at))
    return probe.conclude(best, tried, parts.notes)


CLIP = Protocol(
    "clip",
    "logistic regression, C by a search of 7 points and halving spans on 8 a decade",
    "Radford et al.: Learning Transferable Visual Models From Natural Language Supervision. ICML 2021; search as in "
    "Li et al.: ELEVATER. NeurIPS 2022",
    follow,
)
