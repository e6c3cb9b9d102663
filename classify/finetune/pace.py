"""How long a step and a look take, measured once for a plan: the same command has the same plan after a kill, too."""

import hashlib
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from classify.finetune import checkpoint
from classify.finetune.begin import begin
from classify.finetune.bench import Bench, Split
from classify.finetune.log import Log
from classify.finetune.loop import train
from classify.finetune.network import Network
from extract.progress import Silent

FEW, MORE = 2, (6, 24)
"""Steps of the two trainings that are timed: what they share, a look before and one after, is not the steps'.

The longer one has so many at least and at most: batches that were decoded ahead make the first steps quick.
"""
ENOUGH_S = 10.0
"""What the longer one may take."""


def measure_pace(bench: Bench, split: Split, seed: int) -> tuple[float, float]:
    """Return the seconds of a step and of a look at the validation part, as they were when first asked for.

    That answer lies with the checkpoints, and goes with them.
    """
    sizes = [len(split.train), len(split.val)]
    said = [asdict(bench.plan), bench.data, asdict(bench.device), bench.tap, bench.until, sizes]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    folder = checkpoint.training_folder(bench.inputs.features.folder, digest)
    bench.folders.add(folder)
    kept = checkpoint.read(folder, digest)
    if kept is None:
        kept = _measured(bench, split, seed)
        checkpoint.write(folder, digest, kept)
    return kept["step_s"], kept["look_s"]


def _measured(bench: Bench, split: Split, seed: int) -> dict[str, float]:
    network = begin(bench, split.train, seed)
    bench.log.show("measuring how long a step takes")
    _timed(bench, network, split, seed, 1)  # processes start, memory is taken
    few_s = _timed(bench, network, split, seed, FEW)
    least, most = MORE
    more = min(max(least, round(FEW * ENOUGH_S / max(few_s, 1e-9))), most)
    step_s = max(_timed(bench, network, split, seed, more) - few_s, 0.0) / (more - FEW)
    return {"step_s": step_s, "look_s": max(few_s - FEW * step_s, 0.0) / 2}


def _timed(bench: Bench, network: Network, split: Split, seed: int, steps: int) -> float:
    """Return the seconds of a training of so many steps, with a look before them and one after."""
    plan = replace(bench.plan, steps=steps, evaluate_every=steps, warmup_steps=0, drops=())
    lowest = min(plan.settings, key=lambda setting: setting.rate)
    job = replace(bench.job("measure the pace", split, seed, lowest, trial=True), plan=plan)
    with tempfile.TemporaryDirectory() as folder:
        return train(network, bench.examples, job, bench.device, Path(folder), Log(Silent())).seconds
