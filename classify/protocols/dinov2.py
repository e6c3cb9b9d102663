"""The logistic regression of DINOv2 (dinov2/eval/log_regression.py), on scikit-learn where that runs cuML.

45 values of C from 1e-6 to 1e5, each fitted from zero in float64 with up to 1,000 iterations and a tolerance of 1e-12,
chosen on a validation split or on a tenth of the training rows, refitted on both.
"""

import numpy as np

from classify.protocols.logistic import Solver, first_best, make_probe
from classify.protocols.parts import make_parts, torch_share
from classify.protocols.protocol import Options, Protocol, ProtocolData, ProtocolResult
from extract.progress import Progress

POWERS = np.linspace(-6, 5, 45)
SOLVER = Solver(max_iter=1000, tol=1e-12)


def follow(data: ProtocolData, seed: int, options: Options, progress: Progress) -> ProtocolResult:
    """Choose C on the validation rows, of equals the smallest, as it comes first; refit, and measure on the test."""
    parts = make_parts(data, torch_share(10, seed), f"10 % of the training images, drawn by seed {seed}")
    probe = make_probe(data, SOLVER, options, seed)
    progress.start("dinov2", len(POWERS))
    tried = probe.along(10**POWERS, parts, progress)
    return probe.conclude(first_best(tried), tried, parts.notes)


DINOV2 = Protocol(
    "dinov2",
    "logistic regression to a tolerance of 1e-12, 45 values of C, 10 % of the training images to choose by",
    "Oquab et al.: DINOv2: Learning Robust Visual Features without Supervision. TMLR 2024 (eval/log_regression.py)",
    follow,
    resized=(224, 224, "bicubic"),
)
