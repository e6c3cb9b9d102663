"""Several processes that train together on a cluster of Ray, started by Ray Train.

They find the order, and lay down checkpoint and answer, in the cache, which all machines see under one path. A worker
that dies is started anew by Ray Train, together with the others.
"""

import importlib
import tempfile
from pathlib import Path
from typing import Any

from classify.finetune.order import Desk
from extract.errors import EngineError
from extract.store.files import TEMPORARY

FAILURES = 3
"""How often all are started anew where one has died."""
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


def check() -> None:
    """Raise EngineError where Ray Train is not installed."""
    _modules()


def _modules() -> tuple[Any, Any]:
    try:
        return importlib.import_module("ray.train"), importlib.import_module("ray.train.torch")
    except ImportError as error:
        raise EngineError("Ray Train is not installed", remedy='Run: pip install "offshelf[ray-train]"') from error


def launch(desk: Desk, size: int, device: str, cpus: float) -> str:
    """Have the order on a desk carried out by so many workers, each with these cores, and a GPU on `cuda`.

    -> what was wrong, "" if nothing was.
    """
    train, of_torch = _modules()
    with tempfile.TemporaryDirectory(dir=desk.folder, prefix=TEMPORARY) as scratch:
        trainer = of_torch.TorchTrainer(
            _loop,
            train_loop_config={"folder": str(desk.folder), "digest": desk.digest},
            torch_config=of_torch.TorchConfig(backend=BACKENDS[device]),
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


def _loop(order: dict[str, str]) -> None:
    """Be one of the workers: Ray Train has joined them."""
    from classify.finetune.worker import work

    _, of_torch = _modules()
    work(Desk(Path(order["folder"]), order["digest"]), str(of_torch.get_device()))
