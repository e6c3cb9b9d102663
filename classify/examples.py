"""Examples of a bundle: features of images that come with the program, and what the head says of them.

No image of a user's is in them. Who reads the bundle has the head say it again; who predicts has the network make the
features again, from the golden images (see `extract.golden`): so a machine that decodes, resizes or computes otherwise
is found out before its first answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classify.scoring import Arrays

PROBABILITIES, ROWS = "probabilities", "rows/"
MOST = 64
"""Rows at most; a program has five golden images."""


@dataclass(frozen=True, eq=False)
class Examples:
    """`rows` by layer (P, D_i) float32 of the golden images in fp32, and their `probabilities` (P, C) float64."""

    rows: Arrays
    probabilities: np.ndarray


def pack_examples(examples: Examples) -> Arrays:
    """Return the arrays of the file: `rows/<layer>` and `probabilities`."""
    return {PROBABILITIES: examples.probabilities, **{ROWS + layer: X for layer, X in examples.rows.items()}}


def read_examples(arrays: Arrays, layers: Sequence[str], width: int, n_classes: int) -> Examples:
    """Read what `pack_examples` made, for a head that takes `width` columns; raises ValueError at anything else."""
    if set(arrays) != {PROBABILITIES, *(ROWS + layer for layer in layers)}:
        raise ValueError(f"examples of {sorted(arrays)}"[:200])
    rows, shares = {layer: arrays[ROWS + layer] for layer in layers}, arrays[PROBABILITIES]
    n = len(shares) if shares.ndim == 2 else 0
    if not 1 <= n <= MOST or shares.shape != (n, n_classes) or shares.dtype != np.float64:
        raise ValueError(f"probabilities of examples of the shape {shares.shape}, type {shares.dtype}")
    if any(X.ndim != 2 or len(X) != n or X.dtype != np.float32 for X in rows.values()):
        raise ValueError("rows of examples that belong to no image")
    if sum(X.shape[1] for X in rows.values()) != width:
        raise ValueError("rows of examples that are not those of the head")
    if not all(np.isfinite(values).all() for values in arrays.values()):
        raise ValueError("examples that hold what is no number")
    return Examples(rows, shares)
