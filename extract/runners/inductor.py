"""The network compiled by PyTorch's own compiler: seconds to minutes once, then fewer passes over memory.

On a CPU weights are frozen into the program and its kernels have one thread; on a GPU each lane records a CUDA graph.
"""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from extract.errors import OffshelfError, OptionError, RunnerError, first_line
from extract.forward import Extractor
from extract.runners.chunks import Chunked, Limit
from extract.runners.cuda_graph import recorded
from extract.runners.network import build_to_compile, rounded
from extract.runners.padded import Padded, blank
from extract.runners.runner import Lane

CPU_COMPILERS = ("g++", "clang++", "cl")
SETTINGS: dict[str, dict[str, Any]] = {"cpu": {"freezing": True, "cpp.threads": 1}, "cuda": {}}
"""Of the compiler, by kind of device."""

_COMPILING = threading.Lock()
REMEDY = "Take --compile none"


def has_cpp_compiler() -> bool:
    """Tell whether there is the compiler that a CPU needs: $CXX, or one of the usual names."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), *CPU_COMPILERS) if name)


class Inductor:
    """One compiled program for all lanes; on a GPU with a recording of it for each."""

    name = "inductor"

    def __init__(self, extractor: Extractor, *, batch_size: int) -> None:
        if extractor.device.type == "cpu" and not has_cpp_compiler():
            raise OptionError("inductor needs a C++ compiler", remedy=f"Install g++, or set CXX. {REMEDY}")
        self._extractor = extractor
        self._network = torch.compile(build_to_compile(extractor, extractor.recipe.precision), dynamic=False)
        self._limit = Limit(batch_size)
        self._compile()

    def _compile(self) -> None:
        """Compile in a thread like those of the lanes: a program is compiled for a number of threads, among others."""
        image = blank(1, self._extractor.recipe.preprocessing.crop_size, self._extractor.device)
        try:
            with ThreadPoolExecutor(1, initializer=self._settle) as thread:
                thread.submit(lambda: self.lane()(image)).result()
        except OffshelfError:
            raise
        except Exception as error:  # a compiler of a million lines fails in any way
            said = f"inductor cannot compile this network ({first_line(error)})"
            raise RunnerError(said, where=self._extractor.recipe.model, remedy=REMEDY) from error

    def _settle(self) -> None:
        if self._extractor.device.type == "cpu":
            torch.set_num_threads(1)

    def lane(self) -> Lane:
        """Return a lane for the thread that asks."""
        return Chunked(self._build, self._limit, whole=True)

    def _build(self, size: int) -> Lane:
        """Compile for batches of one size, unless that is done, and run one."""
        from torch._inductor import config  # takes a second to import

        device = self._extractor.device
        # Made in inference mode, as in a lane: the program is compiled for tensors of that kind.
        with _COMPILING, config.patch(SETTINGS[device.type]), torch.inference_mode():
            batch = blank(size, self._extractor.recipe.preprocessing.crop_size, device)
            self._run(batch)
        return Padded(recorded(self._run, batch) if device.type == "cuda" else self._run, batch)

    def _run(self, batch: Tensor) -> dict[str, Tensor]:
        return rounded(self._network(batch), self._extractor.recipe.store)
