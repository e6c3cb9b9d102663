"""Who starts the processes that train a network together: nobody, PyTorch's launcher on this machine, or Ray."""

from collections.abc import Iterator
from functools import partial

import torch

from classify.finetune.job import Device
from classify.finetune.network import MOVING
from classify.finetune.plan import Plan
from classify.finetune.together import Group
from classify.spec import FitSpec
from extract.errors import OptionError
from extract.spec import EngineSpec


def group_of(spec: FitSpec, plan: Plan, device: Device) -> Group | None:
    """Return the processes that were asked for, None where this one trains alone.

    Raises OptionError where there are not so many GPUs, or images in a step; EngineError where Ray Train is missing.
    """
    size = spec.tune.processes or 1
    local = spec.engine == EngineSpec()
    if local and size == 1:
        return None
    if plan.batch_size < size:
        said = f"{size} processes have nothing to share in steps of {plan.batch_size} images"
        raise OptionError(said, remedy=f"Take --processes {plan.batch_size} or fewer, or a larger --batch-size")
    if not local:
        return _on_ray(spec, size, device)
    from classify.finetune import torchrun

    return Group(size, partial(torchrun.launch, devices=_devices(size, device)), device.torch.type)


def _on_ray(spec: FitSpec, size: int, device: Device) -> Group:
    """Return workers of Ray Train, on GPUs where this machine has one or, left to choose, where the cluster has."""
    from classify.finetune import ray_train

    gpus = ray_train.gpus()
    if spec.engine.address is None:
        _devices(size, device)
    chosen_there = spec.device == "auto" and spec.engine.address is not None
    kind = "cuda" if chosen_there and gpus else device.torch.type
    launch = partial(ray_train.launch, size=size, device=kind, cpus=spec.engine.cpus)
    return Group(size, launch, kind, tuple(_notes_of_ray(spec, size, device, kind, gpus)))


def _notes_of_ray(spec: FitSpec, size: int, device: Device, kind: str, gpus: int) -> Iterator[str]:
    """Say on what a cluster trains, where that is not what this machine has, or is not there yet."""
    if kind != device.torch.type:
        yield f"they train on GPUs of the cluster, in {device.precision}; all else is computed here, on the CPU"
    if kind == "cuda" and gpus < size:
        yield f"the cluster has {gpus} GPUs now: a training begins when it has {size}"
    if kind == "cpu" and spec.device == "auto" and spec.engine.address:
        yield "no machine of the cluster has a GPU now: they train on CPUs"


def notes_of(group: Group | None, plan: Plan) -> list[str]:
    """Say what is otherwise where several processes train."""
    if group is None:
        return []
    share = plan.batch_size // group.size
    said = [f"{group.size} processes train each network together, on {share} or so of the images of a step each"]
    if plan.bn == MOVING and group.kind != "cuda":
        said.append(f"BatchNorm learns from these {share} by themselves: only on GPUs does it see the whole step")
    return [*(said if group.size > 1 else ()), *group.notes]


def _devices(size: int, device: Device) -> list[str]:
    """Name a GPU for each process; on a CPU they share its cores."""
    kind = device.torch.type
    if kind != "cuda":
        return [kind] * size
    if size > torch.cuda.device_count():
        said = f"{size} processes need a GPU each, and there are {torch.cuda.device_count()}"
        raise OptionError(said, remedy=f"Take --processes {torch.cuda.device_count()}, or --engine ray on a cluster")
    return [f"cuda:{number}" for number in range(size)]
