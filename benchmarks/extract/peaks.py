"""What one core of this machine can do at most, on all cores at once: convolutions, decoders, resizing.

Run as a program it prints the peaks as JSON; each core runs one thread of its own process, and all of them start each
measurement together.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.extract.harness import CORES, middle

WINDOW_S = 0.5
CONVOLUTIONS = ((64, 56), (128, 28), (256, 14))
"""Channels and side of the maps of 3x3 convolutions, as in ResNets."""

BATCH = 8
"""Maps of a batch stay below what glibc gives back to the kernel, which would measure page faults."""


def rate(work: Callable[[], float], window_s: float = WINDOW_S) -> float:
    """Return units of work per second over a window, after a first call that warms up."""
    work()
    done, began = 0.0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < window_s:
        done += work()
    return done / seconds


def convolution(channels: int, side: int, dtype: str) -> Callable[[], float]:
    """Return a 3x3 convolution, channels last, as work in GFLOP (2 per multiply-add)."""
    import torch

    kind = getattr(torch, dtype)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(kind, memory_format=torch.channels_last)
    maps = torch.randn(BATCH, channels, side, side).to(kind, memory_format=torch.channels_last)
    giga = 2 * 9 * channels**2 * side**2 * BATCH / 1e9

    def work() -> float:
        with torch.inference_mode():
            layer(maps)
        return giga

    return work


def pillow(photos: Sequence[bytes]) -> Callable[[], float]:
    """Return the decoding of all photos by Pillow."""
    from PIL import Image

    def work() -> float:
        for photo in photos:
            Image.open(io.BytesIO(photo)).convert("RGB")
        return len(photos)

    return work


def turbo(photos: Sequence[bytes]) -> Callable[[], float]:
    """Return the decoding of all photos by simplejpeg."""
    import simplejpeg

    def work() -> float:
        for photo in photos:
            simplejpeg.decode_jpeg(photo)
        return len(photos)

    return work


def resize(photos: Sequence[bytes]) -> Callable[[], float]:
    """Return the antialiased resizing of all photos to 256 pixels and their crop to 224, on uint8 tensors."""
    import numpy as np
    import torch
    from PIL import Image
    from torchvision.transforms.v2 import functional as F

    decoded = [np.asarray(Image.open(io.BytesIO(photo)).convert("RGB")) for photo in photos]
    tensors = [torch.from_numpy(pixels.copy()).permute(2, 0, 1) for pixels in decoded]

    def work() -> float:
        for pixels in tensors:
            F.center_crop(F.resize(pixels, [256], antialias=True), [224, 224]).contiguous()
        return len(tensors)

    return work


def measures(photos: Sequence[bytes]) -> dict[str, Callable[[], Callable[[], float]]]:
    """Return all that is measured, to be set up: `fp32 64x56` ... in GFLOP/s, the others in images/s."""
    table: dict[str, Callable[[], Callable[[], float]]] = {
        f"{name} {channels}x{side}": partial(convolution, channels, side, dtype)
        for name, dtype in (("fp32", "float32"), ("bf16", "bfloat16"))
        for channels, side in CONVOLUTIONS
    }
    if find_spec("simplejpeg"):
        table["simplejpeg"] = partial(turbo, photos)
    return table | {"pillow": partial(pillow, photos), "resize": partial(resize, photos)}


def core(barrier: Barrier, folder: Path, n: int, pipe: Any) -> None:
    """Measure everything on this core, in step with the others."""
    import torch

    torch.set_num_threads(1)
    photos = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:n]]
    found = {}
    for name, prepared in measures(photos).items():
        work = prepared()
        barrier.wait()
        found[name] = rate(work)
    pipe.send(found)


def peaks(folder: Path, n: int) -> dict[str, float]:
    """Measure on all cores at once, with n photos: -> the median of the cores; of convolutions the best size."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = get_context("spawn")
    barrier = context.Barrier(CORES)
    pipes = [context.Pipe(duplex=False) for _ in range(CORES)]
    workers = [context.Process(target=core, args=(barrier, folder, n, writing)) for _, writing in pipes]
    for worker in workers:
        worker.start()
    for _, writing in pipes:
        writing.close()  # so that the death of a worker is the end of its pipe
    found = [reading.recv() for reading, _ in pipes]
    for worker in workers:
        worker.join()
    rates = {name: middle([each[name] for each in found]) for name in found[0]}
    best = {kind: max(rates[name] for name in rates if name.startswith(kind)) for kind in ("fp32", "bf16")}
    return best | {name: value for name, value in rates.items() if " " not in name}


if __name__ == "__main__":
    print(json.dumps(peaks(Path(sys.argv[1]), int(sys.argv[2]))))
