"""The probe's head as the last layer of a network: folded into one affine map, and proven to say the same."""

import numpy as np
import torch
from torch import Tensor

from classify.finetune.network import Network
from classify.scoring import ABSENT, ROWWISE, Arrays, unchanged
from extract.errors import FitError, unknown
from extract.recipe import Recipe

EXACT = 1e-4
"""How far scores may be apart, as a share of their spread, where rows were computed and kept in fp32."""
PRECISIONS = {"fp32": EXACT, "fp16": 1e-2, "bf16": 5e-2}
STORES = {"float32": EXACT, "float16": 2e-2}
TF32 = 1e-2


def fold(arrays: Arrays, *, transform: str) -> tuple[np.ndarray, np.ndarray]:
    """Turn a head on prepared rows into one on the rows themselves: -> coef (C, D), intercept (C,), float64.

    `arrays` are those of a linear head: mean, scale (D,), coef (C, D), intercept (C,); `transform` is what its rows go
    through. W' = W / scale, b' = b - W' mean. Binary heads of one row get two, -w/2 and w/2, whose softmax is the
    sigmoid of the one. A class that the probe never saw (intercept -inf) begins with zeros and a bias 10 below the
    lowest. FitError for a transform that changes rows one by one, which no affine map can do.
    """
    if transform not in ROWWISE:
        unknown("transform", transform, ROWWISE, FitError)
    if ROWWISE[transform] is not unchanged:
        said = f"a head on rows in {transform!r} is no affine map of the rows"
        foldable = ", ".join(name for name, change in ROWWISE.items() if change is unchanged)
        raise FitError(said, where="lp-ft", remedy=f"Fit it on rows in one of: {foldable}")
    coef = np.atleast_2d(np.asarray(arrays["coef"], np.float64)) / arrays["scale"]
    intercept = np.atleast_1d(np.asarray(arrays["intercept"], np.float64)) - coef @ arrays["mean"]
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    return _absent_low(coef, intercept)


def _absent_low(coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give classes with an intercept of -inf a finite one, by which they lose, and no weights."""
    absent = np.isneginf(intercept)
    lowest = intercept[~absent].min() - ABSENT
    return np.where(absent[:, None], 0.0, coef), np.where(absent, lowest, intercept)


def tolerance(recipe: Recipe, *, cached: bool = False) -> float:
    """Say how far a network's scores may be from those of the cached rows, as a share of the spread of the scores.

    1e-4 where the rows were computed and are kept in fp32, 2e-2 where they, or the maps below (`cached`), are kept as
    float16, and more where less was computed in. Of ResNet-50 and MobileNetV2 on photographs (two classes, any
    penalty), rows or maps kept as float16 moved scores by 5e-5 of their spread, and bf16 by 1.4e-2; of SqueezeNet on
    digits, whose features are nearly collinear and whose heads are weakly regularised, maps as float16 by 6.3e-3. What
    the proof is there for, other images, layers or weights, moves them by tenths and more.
    """
    kept = max(STORES[recipe.store], STORES["float16"] if cached else 0.0)
    return max(PRECISIONS[recipe.precision], kept, TF32 if recipe.tf32 else 0.0)


def prove_head(network: Network, x: Tensor, rows: np.ndarray, expected: np.ndarray, *, allowed: float = EXACT) -> float:
    """Prove that a network scores as the probe did on the rows of the cache, before its first step.

    `x` are pixels or maps of n images in the centre view, on the network's device, `rows` (n, D) what the cache has of
    them, `expected` (n, C) what the probe says of those. -> the largest difference over the spread of the expected
    scores; above `allowed` (see `tolerance`) it is a FitError that says on which side of the head they part. Classes
    that the probe never saw (-inf) are not compared. Compute in fp32: autocast rounds more.
    """
    seen, scored = _scored(network, x)
    apart = _apart(scored, expected)
    if apart <= allowed:
        return apart
    said = (
        f"before the first step, scores differ from the probe's by {apart:.1e} of their spread ({allowed:.0e} is due)"
    )
    if _apart(seen, rows) <= allowed:
        raise FitError(
            f"{said}, though the features agree", where="lp-ft", remedy="Fit the head again: it is not this one"
        )
    remedy = "Extract and fit again: the images, their preprocessing, the layer or the weights are others"
    raise FitError(f"{said}, and so do the features", where="lp-ft", remedy=remedy)


def _scored(network: Network, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (n, D) and logits (n, C) in eval mode; the mode is afterwards what it was."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            return network.features(x).cpu().numpy(), network(x).cpu().numpy()
    finally:
        network.train(was_training)


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    """Say how far two arrays (n, k) are apart, as a share of the spread of the expected; inf where they do not compare.

    Columns of -inf are left out.
    """
    if found.shape != expected.shape:
        return np.inf
    known = ~np.isneginf(expected).all(axis=0)
    largest = float(np.abs(found.astype(np.float64) - expected)[:, known].max())
    return largest / (np.ptp(expected[:, known]) or 1.0) if np.isfinite(largest) else np.inf
