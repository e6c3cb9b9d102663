from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from tiny_training import TinyExamples, tiny_job

from classify.finetune.job import Device, Job, digest_of
from classify.finetune.plan import Augment, Plan, Setting

START = {"head.weight": torch.ones(3, 2), "bn.num_batches_tracked": torch.tensor(7)}
JOB = tiny_job(TinyExamples())
CHANGED = {
    "plan": replace(JOB.plan, steps=13),
    "setting": Setting(0.3, 1e-3),
    "seed": 1,
    "train": JOB.train[::-1],
    "val": JOB.val[1:],
    "y": np.roll(JOB.y, 1),
    "data": "other",
}
SAME = {"name": "fold 1", "trial": True, "checkpoint_s": 1.0}
PLANS = {
    "recipe": "bit",
    "steps": 13,
    "batch_size": 9,
    "settings": (Setting(0.1, 0),),
    "optimizer": "adamw",
    "momentum": 0.8,
    "nesterov": False,
    "head_rate": 10.0,
    "layer_decay": 0.9,
    "decay_below_head": False,
    "decay_over_rate": True,
    "gradual": True,
    "warmup_steps": 3,
    "schedule": "drops",
    "drops": (5,),
    "label_smoothing": 0.1,
    "mixup": 0.1,
    "ema": 0.75,
    "clip_norm": 0.0,
    "bn": "train",
    "augment": Augment(crop=True, flip=False),
    "evaluate_every": 5,
    "patience": 3,
    "fresh": True,
    "class_weight": "balanced",
}


def digest(job: Job = JOB, *, start=START, frozen: str = "f", device: Device | None = None) -> str:
    return digest_of(job, start, frozen, device or Device())


def test_all_that_determines_a_training_names_it_and_nothing_else_does():
    assert {field.name for field in fields(Job)} == CHANGED.keys() | SAME.keys()
    others = [digest(replace(JOB, **{name: value})) for name, value in CHANGED.items()]
    assert len({digest(), *others}) == len(CHANGED) + 1
    assert {digest(replace(JOB, **{name: value})) for name, value in SAME.items()} == {digest()}


def test_every_field_of_a_plan_but_what_else_was_tried_names_it():
    assert {field.name for field in fields(Plan)} == PLANS.keys()
    others = {name: digest(replace(JOB, plan=replace(JOB.plan, **{name: value}))) for name, value in PLANS.items()}
    assert others.pop("settings") == digest()
    assert others.pop("recipe") == digest()
    assert len({digest(), *others.values()}) == len(others) + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"start": START | {"head.weight": torch.zeros(3, 2)}},
        {"start": START | {"bn.num_batches_tracked": torch.tensor(8)}},
        {"frozen": "g"},
        {"device": Device(precision="bf16")},
        {"device": Device(compile=True)},
        {"device": Device("cuda")},
    ],
)
def test_so_do_weights_and_device(changes):
    assert digest(**changes) != digest()


def test_which_gpu_it_is_does_not():
    assert digest(device=Device("cuda:1")) == digest(device=Device("cuda:0"))


def test_it_does_not_depend_on_how_weights_lie_in_memory():
    weight = torch.arange(24.0).reshape(1, 2, 3, 4)
    lying = weight.contiguous(memory_format=torch.channels_last)
    assert digest(start={"w": weight}) == digest(start={"w": lying})
