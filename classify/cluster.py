"""A fit on a cluster of Ray: the connection, open for as long as the fit."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from classify.heads import find_head
from classify.solvers import Pipelines, solver_of
from classify.spec import FitSpec
from classify.tuning import LINEAR
from extract.errors import EngineError, OptionError
from extract.spec import EngineSpec


@contextmanager
def connected(spec: FitSpec) -> Iterator[None]:
    """Have Ray at hand where a fit is to use it; raises OptionError where it could not, EngineError without Ray.

    That is also without Ray Train where the network may be trained: in the end it would be too late to say so.
    """
    if spec.engine == EngineSpec():
        yield
        return
    _check(spec)
    # Not above: it would bring PyTorch along.
    from extract.engines.session import session

    with session(replace(spec.engine, actors=spec.tune.processes or spec.jobs)):
        if spec.strategy != LINEAR:
            ray_train()
        yield


def ray_train() -> tuple[Any, Any]:
    """Return Ray Train, and what of it is for PyTorch; raises EngineError where it is not installed."""
    try:
        return importlib.import_module("ray.train"), importlib.import_module("ray.train.torch")
    except ImportError as error:
        raise EngineError("Ray Train is not installed", remedy='Run: pip install "offshelf[ray-train]"') from error


def _check(spec: FitSpec) -> None:
    """Refuse what runs on this machine alone, whatever the engine."""
    if spec.published or spec.multi_label:
        said = "protocols and fits of several labels run on one machine"
        raise OptionError(said, where="--engine ray", remedy="Leave --engine out")
    ours = not isinstance(solver_of(find_head(spec.head, spec.params), spec.class_weight), Pipelines)
    if spec.strategy == LINEAR and ours:
        said = f"the head {spec.head} is searched by a solver of our own, on one machine"
        remedy = "Leave --engine out, or take a head of scikit-learn, or a strategy that trains the network"
        raise OptionError(said, where="--engine ray", remedy=remedy)
