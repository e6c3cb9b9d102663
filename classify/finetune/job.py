"""One training: what is to be done, on what, and what came of it."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from classify.finetune.plan import Plan, Setting
from extract.backbones import digest
from extract.backbones.weights import State

Row = dict[str, Any]
"""A look at the validation part: step, rate, loss, val_loss, val_accuracy, seconds. No loss at step 0."""


@dataclass(frozen=True, eq=False)
class Job:
    """A training to be done: `train` and `val` are positions in the training part of the data set, y (n,) its codes.

    `data` names all that the examples are read from (digests of feature sets), and is one of the things that tell this
    training from another. `name` is what people read, and no two trainings of a run share it. In a `trial` a loss that
    is no number is an answer; in any other training, an error. A kill costs at most `checkpoint_s` of work.
    """

    plan: Plan
    setting: Setting
    seed: int
    train: np.ndarray
    val: np.ndarray
    y: np.ndarray
    data: str
    name: str = "training"
    trial: bool = False
    checkpoint_s: float = 60.0


@dataclass(frozen=True)
class Device:
    """What a training computes on, and how: `precision` is fp32 or bf16; `compile` has PyTorch compile the network."""

    name: str = "cpu"
    precision: str = "fp32"
    compile: bool = False

    @property
    def torch(self) -> torch.device:
        """The device itself."""
        return torch.device(self.name)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A training so far: the weights with the lowest validation loss, those of step `best_step`, as `Network.state`.

    `val` has their `loss` (mean, in nats) and `accuracy`; `history` every look; `step` is where the training stands,
    and `finished` whether it comes to anything more. It has `diverged` where a loss was no number.
    """

    state: State
    best_step: int
    step: int
    val: dict[str, float]
    history: list[Row]
    seconds: float
    finished: bool
    diverged: bool = False


def digest_of(job: Job, start: State, frozen: str, device: Device, processes: int = 1) -> str:
    """Name a training by all that determines its result: SHA-256 as hexadecimal digits.

    `start` are the weights that it begins with, and `frozen` the digest of those that stay. What a plan is called, and
    which other settings it tries, is nothing to it. Several processes round otherwise than one, and draw dropout for
    themselves.
    """
    said: dict[str, Any] = {
        "plan": {name: value for name, value in asdict(job.plan).items() if name not in ("recipe", "settings")},
        "setting": asdict(job.setting),
        "seed": job.seed,
        "data": job.data,
        "weights": [digest(start), frozen],
        "device": [device.torch.type, device.precision, device.compile],
        "torch": torch.__version__,
    } | ({} if processes == 1 else {"processes": processes})
    sha = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for positions in (job.train, job.val, job.y):
        sha.update(hashlib.sha256(np.ascontiguousarray(positions, np.int64).tobytes()).digest())
    return sha.hexdigest()
