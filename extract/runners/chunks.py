"""Memory that does not suffice: batches are run in smaller parts, and the rows stay the same."""

import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from extract.errors import RunnerError
from extract.runners.runner import Lane

log = logging.getLogger(__name__)

Build = Callable[[int], Lane]
"""Makes a lane that takes so many images at most."""


class Limit:
    """The most images that the memory takes at once, known to all lanes of a runner."""

    def __init__(self, images: int) -> None:
        self.images = images
        self._lock = threading.Lock()

    def halve(self, tried: int, error: Exception) -> None:
        """Take half of what was tried, unless another lane has done so; raises RunnerError at one image."""
        with self._lock:
            if tried <= 1:
                raise RunnerError("the memory does not suffice for one image", remedy=REMEDY) from error
            if tried > self.images:
                return
            self.images = tried // 2
            log.warning("out of memory with %d images at once: going on with %d", tried, self.images)


REMEDY = "Take a smaller --crop-size or network, or free memory"


class Chunked:
    """A lane that runs batches in parts as large as the memory takes; `whole` where a lane fills up every part."""

    def __init__(self, build: Build, limit: Limit, *, whole: bool = False) -> None:
        self._build, self._limit, self._whole = build, limit, whole
        self._size, self._lane = 0, None

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        """Run a batch; where the memory does not suffice, once more in smaller parts."""
        while True:
            size = self._limit.images
            failure = None
            try:
                return self._run(pixels, size)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                failure = error.with_traceback(None)  # its frames hold the tensors that are to be freed
            self._make_room()
            self._limit.halve(size if self._whole else min(size, len(pixels)), failure)

    def _run(self, pixels: Tensor, size: int) -> dict[str, Tensor]:
        if self._lane is None or size != self._size:
            self._lane = None
            self._lane, self._size = self._build(size), size
        if len(pixels) <= size:
            return self._lane(pixels)
        parts = [self._lane(part) for part in pixels.split(size)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _make_room(self) -> None:
        self._lane = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def out_of_memory(error: Exception) -> bool:
    """Tell whether that was all: of a GPU, of Python, or in the words of PyTorch's allocator on a CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
