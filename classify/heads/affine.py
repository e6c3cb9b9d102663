"""What a pipeline has fitted before its classifier, as the arrays of a bundle."""

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from classify.probe.linear import Linear
from classify.probe.transforms import WHITENED, Standardiser, Whitener, make_steps
from classify.scoring import Arrays

DROPPED = float(np.finfo(np.float64).max)
"""The scale of a feature that is dropped, where arrays must be finite: over it, every feature is next to 0."""


def steps_of(transform: str) -> list[Any]:
    """Return the transformers of a transform for any number of rows: whitening caps itself to those it is fitted on."""
    return make_steps(transform, WHITENED + 1, WHITENED)


def fitted_part(pipeline: Pipeline) -> Arrays:
    """Return mean and scale (D,), inf where a feature is dropped, and components (K, D) where rows are whitened."""
    for _, step in pipeline.steps[:-1]:
        if isinstance(step, Standardiser):
            return {"mean": np.asarray(step.mean_), "scale": np.asarray(step.scale_)}
        if isinstance(step, Whitener):
            width = len(step.mean_)
            return {"mean": step.mean_, "scale": np.ones(width), "components": step.components_}
    width = pipeline[-1].n_features_in_
    return {"mean": np.zeros(width), "scale": np.ones(width)}


def linear_arrays(pipeline: Pipeline) -> Arrays:
    """Fold a linear classifier and what was fitted before it: -> mean, scale (D,), coef (C, D), intercept (C,)."""
    model: Any = pipeline[-1]
    coef, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
    part = fitted_part(pipeline)
    coef = coef @ part["components"] if "components" in part else coef
    return Linear.of(part["mean"], part["scale"], coef, intercept).arrays()


def imported_arrays(pipeline: Pipeline) -> Arrays:
    """Return what prepares rows for an imported classifier: mean, scale (D,), all finite, and perhaps components."""
    part = fitted_part(pipeline)
    return {**part, "scale": np.minimum(part["scale"], DROPPED)}
