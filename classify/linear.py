"""The linear probe from the inputs to the run: searched, judged and fitted, and written where it is what is wanted."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classify.bundle import Bundle, write_bundle
from classify.deploy import deploy
from classify.evidence import gather, scores_of
from classify.folders import whole_folder
from classify.inputs import Inputs, blocks_of, open_for_fit, read_inputs
from classify.judged import Judged, judge
from classify.runs import check_replaceable, run_folder, write_evidence
from classify.search import search
from classify.solvers import Fitted
from classify.spec import FitSpec
from extract.errors import FitError
from extract.progress import Progress

Advise = Callable[[dict[str, Any]], dict[str, Any] | None]
"""What metrics say of a run -> the advice that goes with them, if there is any."""


def no_advice(metrics: dict[str, Any]) -> None:
    """Advise nothing, as a fit does that was told what to do."""


@dataclass(frozen=True, eq=False)
class Probe:
    """The linear probe: its search, bundle, what the bundle is held against, and scores (n, C) of the test part."""

    judged: Judged
    bundle: Bundle
    fitted: Fitted
    test: np.ndarray
    seconds: float


@dataclass(frozen=True, eq=False)
class Goal:
    """Where a run is written, when the fit began (`time.perf_counter()`), and who has advice to go with it."""

    folder: Path
    started: float
    advise: Advise = no_advice

    def tell(self, metrics: dict[str, Any]) -> None:
        """Put into metrics where they lie, what is advised, and how long it took."""
        metrics["advice"] = self.advise(metrics)
        metrics.update(run=str(self.folder), seconds=round(time.perf_counter() - self.started, 3))


def begin_fit(spec: FitSpec, watch: Progress) -> tuple[Inputs, Goal]:
    """Open the features, find where the run goes, and read what is fitted on."""
    started = time.perf_counter()
    features = open_for_fit(spec)
    goal = Goal(run_folder(spec.out, features), started)
    return read_inputs(spec, features, watch), goal


def fit_linear(spec: FitSpec, watch: Progress) -> dict[str, Any]:
    """Search, calibrate, refit, test and write a run; return the content of its metrics.json."""
    inputs, goal = begin_fit(spec, watch)
    inputs.tell(watch)
    return write_probe(spec, inputs, fit_probe(spec, inputs, watch), goal, watch)


def fit_probe(spec: FitSpec, inputs: Inputs, watch: Progress) -> Probe:
    """Search, judge and fit the probe, and let it answer for the test part."""
    started = time.perf_counter()
    found = search(inputs.task, inputs.solver, inputs.dims, watch)
    judged = judge(spec, inputs.task, inputs.solver, found)
    bundle, fitted = deploy(spec, inputs, judged)
    scores = scores_of(inputs.features, bundle, inputs.data.test.rows)
    return Probe(judged, bundle, fitted, scores, time.perf_counter() - started)


def write_probe(spec: FitSpec, inputs: Inputs, probe: Probe, goal: Goal, watch: Progress) -> dict[str, Any]:
    """Write the probe as a run; return the content of its metrics.json."""
    evidence = gather(spec, inputs, probe.judged, probe.bundle, probe.test, watch)
    goal.tell(evidence.metrics)
    check_replaceable(goal.folder)
    with whole_folder(goal.folder, FitError) as temporary:
        features, bundle, fitted = inputs.features, probe.bundle, probe.fitted
        blocks = blocks_of(features, bundle.layers, inputs.data.train.rows[fitted.at])
        weights = features.weights_path
        write_bundle(temporary / "bundle", bundle, weights=weights, blocks=blocks, expected=fitted.expected)
        write_evidence(temporary, evidence)
    return evidence.metrics
