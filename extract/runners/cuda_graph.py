"""CUDA graphs: the kernels of a network recorded once and started as one, for the thread and stream that recorded."""

import logging
import threading

import torch
from torch import Tensor

from extract.errors import first_line
from extract.runners.chunks import out_of_memory
from extract.runners.padded import Run

log = logging.getLogger(__name__)

WARM_UPS = 3
"""Runs before the recording, in which libraries choose algorithms and take their work space."""

_RECORDING = threading.Lock()


def recorded(run: Run, batch: Tensor) -> Run:
    """Record `run` on `batch` and return what replays it there; where that fails, warn and return `run` itself.

    The rows lie in the same memory after each replay. One thread records at a time: what opens a recording waits for
    all that the device does, which no other recording survives.
    """
    try:
        with _RECORDING, torch.cuda.device(batch.device):
            graph, rows = _record(run, batch)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        log.warning("no CUDA graph: %s; the network runs without one", first_line(error))
        return run

    def replay(_: Tensor) -> dict[str, Tensor]:
        graph.replay()
        return rows

    return replay


def _record(run: Run, batch: Tensor) -> tuple[torch.cuda.CUDAGraph, dict[str, Tensor]]:
    """Warm up and record on a stream of its own, as a recording must not be on the default one."""
    here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    aside.wait_stream(here)
    with torch.cuda.stream(aside), torch.inference_mode():
        for _ in range(WARM_UPS):
            run(batch)
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
        rows = run(batch)
    return graph, rows
