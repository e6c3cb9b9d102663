"""Kornblith's linear evaluation, as github.com/linusericsson/ssl-transfer (linear.py) publishes it.

Multinomial logistic regression by L-BFGS on features as they are, 45 weight decays from 1e-6 to 1e5, C = 1 / decay,
each fit started from the one before; refitted on training and validation rows with the C that was best.
"""

import numpy as np

from classify.protocols.logistic import Solver, first_best, make_probe
from classify.protocols.parts import make_parts, numpy_share
from classify.protocols.protocol import Options, Protocol, ProtocolData, ProtocolResult
from extract.progress import Progress

WEIGHT_DECAYS = np.logspace(-6, 5, 45)
SOLVER = Solver(max_iter=100, pairs=True, warm=True)
"""scikit-learn's defaults then, its warnings of too few iterations ignored; a softmax of two for two classes."""


def follow(data: ProtocolData, seed: int, options: Options, progress: Progress) -> ProtocolResult:
    """Choose C on the validation rows, of equals the largest, as it comes first; refit, and measure on the test."""
    parts = make_parts(data, numpy_share(0.2, seed), f"20 % of the training images, drawn by seed {seed}")
    probe = make_probe(data, SOLVER, options, seed)
    progress.start("kornblith", len(WEIGHT_DECAYS))
    tried = probe.along(1 / WEIGHT_DECAYS, parts, progress)
    # The refit too starts where the path ended, as the published code has it.
    return probe.conclude(first_best(tried), tried, parts.notes)


KORNBLITH = Protocol(
    "kornblith",
    "logistic regression on features as they are, 45 weight decays, 20 % of the training images to choose by",
    "Kornblith, Shlens, Le: Do Better ImageNet Models Transfer Better? CVPR 2019; as in Ericsson, Gouk, Hospedales: "
    "How Well Do Self-Supervised Models Transfer? CVPR 2021 (ssl-transfer, linear.py)",
    follow,
    resized=(224, 224, "bicubic"),
)
