"""Several processes that train together on a cluster of Ray, started by Ray Train.

They find the order, and lay down checkpoint and answer, in the cache, which all machines see under one path. A worker
that dies is started anew by Ray Train, together with the others.
"""

import importlib
import socket
import tempfile
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed import Store, TCPStore  # pyright: ignore[reportPrivateImportUsage] documented there

from classify.cluster import ray_train
from classify.finetune.order import Desk
from extract.store.files import TEMPORARY

FAILURES = 3
"""How often all are started anew where one has died."""
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


def gpus() -> int:
    """Return how many GPUs the cluster has now; raises EngineError where Ray Train is not installed."""
    ray_train()
    return int(importlib.import_module("ray").cluster_resources().get("GPU", 0))


def launch(desk: Desk, size: int, device: str, cpus: float) -> str:
    """Have the order on a desk carried out by so many workers, each with these cores, and a GPU on `cuda`.

    -> what was wrong, "" if nothing was.
    """
    train, of_torch = ray_train()
    with tempfile.TemporaryDirectory(dir=desk.folder, prefix=TEMPORARY) as scratch:
        trainer = of_torch.TorchTrainer(
            _loop,
            train_loop_config={"folder": str(desk.folder), "digest": desk.digest},
            torch_config=_config(of_torch),
            scaling_config=train.ScalingConfig(
                num_workers=size, use_gpu=device == "cuda", resources_per_worker={"CPU": cpus}
            ),
            run_config=train.RunConfig(
                name=desk.digest, storage_path=scratch, failure_config=train.FailureConfig(max_failures=FAILURES)
            ),
        )
        try:
            trainer.fit()
        except train.TrainingFailedError as error:
            return str(error).strip().splitlines()[-1]
    return ""


def _config(of_torch: Any) -> Any:
    """Have Ray Train start workers that know the GPUs of each other, and leave it to them to meet.

    It would have PyTorch open its store to all addresses of a machine.
    """
    backend = importlib.import_module("ray.train.backend").Backend

    class Apart(backend):
        share_cuda_visible_devices = True

    class Config(of_torch.TorchConfig):
        backend_cls = Apart

    return Config()


def _loop(order: dict[str, str]) -> None:
    """Be one of the workers."""
    from classify.finetune.worker import work

    train, of_torch = ray_train()
    device, me = of_torch.get_device(), train.get_context()
    rank, size = me.get_world_rank(), me.get_world_size()
    dist.init_process_group(BACKENDS[device.type], store=_met(rank, size), rank=rank, world_size=size)
    work(Desk(Path(order["folder"]), order["digest"]), str(device))
    dist.destroy_process_group()


def _met(rank: int, size: int) -> Store:
    """Open the store where the workers meet: the first one listens where Ray says that its machine is, nowhere else."""
    ray, collective = (importlib.import_module(name) for name in ("ray", "ray.train.collective"))
    listening = _listening(ray.util.get_node_ip_address()) if rank == 0 else None
    host, port = collective.broadcast_from_rank_zero(listening and listening.getsockname()[:2])
    if listening is None:
        return TCPStore(host, port, size)
    return TCPStore(host, port, size, is_master=True, master_listen_fd=listening.detach())


def _listening(host: str) -> socket.socket:
    """Listen on some port of one address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)
