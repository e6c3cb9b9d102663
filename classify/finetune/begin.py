"""How a training begins: the weights, and the probe's head as the last layer, fitted on what is trained on alone."""

from dataclasses import replace

import numpy as np

from classify.choice import choose
from classify.finetune.averaging import recalibrate
from classify.finetune.bench import MOST_AT_ONCE, Bench, lent
from classify.finetune.head import fold, prove_head, tolerance
from classify.finetune.network import Network
from classify.folds import Part
from classify.inputs import make_task
from classify.probe.memo import digest
from classify.probe.memory import plan_memory
from classify.scoring import SCORERS, Arrays
from classify.trials import Candidate
from extract.devices import full_fp32
from extract.parts import fresh_state

FOLDABLE = "std"
"""The transform of a head that is to become a layer: standardising is affine."""


def begin(bench: Bench, at: np.ndarray, seed: int) -> Network:
    """Return the network as a training on positions `at` begins; the probe's head is proven to say what the probe does.

    Raises FitError where it does not.
    """
    recipe = bench.inputs.features.recipe
    fresh = bench.strategy.fresh
    network = bench.network(fresh_state(recipe, tap=bench.tap, seed=seed) if fresh else bench.weights)
    if bench.strategy.probe:
        key = digest(at)
        if key not in bench.heads:  # the same for each seed
            bench.heads[key] = fit_head(bench, at)
        arrays = bench.heads[key]
        network.set_head(*fold(arrays, transform=FOLDABLE))
        _prove(bench, network, arrays, at)
    if bench.plan.bn == "recalibrate":
        with lent(network, bench.device):
            recalibrate(network, bench.plain(at))
    return network


def fit_head(bench: Bench, at: np.ndarray) -> Arrays:
    """Fit the linear probe on the trained tap, on positions `at` alone, its penalty found on these too."""
    inputs, data = bench.inputs, bench.inputs.data
    part, dims = part_of(data.train, at), inputs.dims[bench.tap]
    room = plan_memory(len(part), dims, len(data.classes), bench.spec.cv).room_bytes
    task, _ = make_task(bench.spec, inputs.features, replace(data, train=part), room)
    candidate = Candidate((bench.tap,), FOLDABLE, dims, list(inputs.dims).index(bench.tap))
    best, _ = choose(task, inputs.solver.refine(task, candidate, bench.log))
    return inputs.solver.fit(task, candidate, best.params).arrays


def part_of(part: Part, at: np.ndarray) -> Part:
    """Return some rows of a part: positions (m,)."""
    groups, twins = (None if codes is None else codes[at] for codes in (part.groups, part.twins))
    return Part(part.rows[at], part.y[at], groups, twins)


def _prove(bench: Bench, network: Network, arrays: Arrays, at: np.ndarray) -> None:
    features, recipe = bench.inputs.features, bench.inputs.features.recipe
    shown = at[: min(bench.plan.batch_size, MOST_AT_ONCE)]
    [x] = bench.plain(shown)
    rows = features.read(bench.tap, bench.inputs.data.train.rows[shown])
    expected = SCORERS["linear"](arrays, rows.astype(np.float64))
    allowed = tolerance(recipe, cached=bench.examples.cached)
    with lent(network, bench.device), full_fp32():
        prove_head(network, x, rows, expected, allowed=allowed)
