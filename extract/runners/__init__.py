"""Runners: what runs a network fast, one file per kind. All give the rows of `Extractor.exact`, up to rounding.

A network is run by several threads, called lanes: on a CPU one per core, whose operators have a single thread; on a
GPU each on a stream of its own.
"""

from collections.abc import Callable

import torch

from extract.devices import set_tf32
from extract.errors import OptionError, unknown
from extract.forward import Extractor
from extract.runners.eager import Eager
from extract.runners.inductor import Inductor
from extract.runners.openvino import OpenVino
from extract.runners.runner import Lane, Runner

__all__ = ["RUNNERS", "Lane", "Runner", "prepare"]

RUNNERS: dict[str, Callable[..., Runner]] = {"none": Eager, "inductor": Inductor, "openvino": OpenVino}
"""By the name that a user gives the compiler."""


def prepare(extractor: Extractor, *, batch_size: int, compiler: str = "none") -> Runner:
    """Make an extractor's network ready to run, with batches of up to `batch_size` images.

    Raises OptionError for a compiler that does not exist, is not there, or does not take the network, and RunnerError
    where it fails.
    """
    if compiler not in RUNNERS:
        unknown("compiler", compiler, RUNNERS, OptionError)
    set_tf32(extractor.recipe.tf32)
    runner = RUNNERS[compiler](extractor, batch_size=batch_size)
    if extractor.device.type == "cuda":
        torch.cuda.synchronize(extractor.device)  # lanes have streams of their own, which wait for no other
    return runner
