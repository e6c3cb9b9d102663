"""How long a step and a look take, measured once for a plan: the same command has the same plan after a kill, too."""

import hashlib
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from classify.finetune import checkpoint
from classify.finetune.begin import begin
from classify.finetune.bench import Bench, Split
from classify.finetune.loop import train

FEW, MORE = 2, 8
"""Steps of the two trainings that are timed; what they share, starting up for one, is not the steps'."""


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
    few, more = (_timed(bench, network, split, seed, steps) for steps in (FEW, MORE))
    step_s = max(more - few, 0.0) / (MORE - FEW)
    return {"step_s": step_s, "look_s": max(few - FEW * step_s, 0.0) / 2}


def _timed(bench: Bench, network, split: Split, seed: int, steps: int) -> float:
    """Return the seconds of a training of so many steps, with a look before them and one after."""
    plan = replace(bench.plan, steps=steps, evaluate_every=steps, warmup_steps=0, drops=())
    job = bench.job("measure the pace", split, seed, min(plan.settings, key=lambda setting: setting.rate), trial=True)
    with tempfile.TemporaryDirectory() as folder:
        return train(network, bench.examples, replace(job, plan=plan), bench.device, Path(folder), bench.log).seconds
