"""The choice of a runner: compile where the job is long enough to pay for it, by measurement on this very network."""

import importlib.util
import threading
import time
from collections.abc import Callable

import torch
from torch import Tensor, fx

from extract.channel import Crew, Ended
from extract.forward import Extractor
from extract.runners import Lane, Runner, prepare
from extract.runners.inductor import has_cpp_compiler

MIN_IMAGES = 500
"""A smaller job is over before anything is compiled."""

SHARE = 0.15
"""Of the time that the eager network would take, how much may be spent on trying to beat it."""

COMPILE_S = {"openvino": 6.0, "inductor": 30.0}
"""What compiling takes. Measured on two busy cores, ResNets, MobileNetV2 and SqueezeNet: 1 to 14 s, and 5 to 37 s."""

FEW = {"cpu": 8, "cuda": 256}
"""By kind of device: images of a batch that tells roughly whether a job is worth a closer look."""

WORTH = 1.05
"""A compiled network that is faster by less is not worth another way of rounding."""

ROUNDS = 2
"""Batches of each lane that are timed, behind one that is not."""


def choose(extractor: Extractor, *, n_images: int, batch_size: int, lanes: int) -> tuple[Runner, str]:
    """Return the runner that will have `n_images` done first, and say why; "" where nothing was tried.

    An image counts once for each view of it, here and in `batch_size`.
    """
    eager = prepare(extractor, batch_size=batch_size)
    compiler, few = compiler_for(extractor), min(FEW[extractor.device.type], batch_size)
    if compiler is None or n_images < max(MIN_IMAGES, timed_images(few, lanes) / SHARE):
        return eager, ""
    eager_s = n_images * image_s(eager, extractor, few, lanes)
    pays_from_s = (COMPILE_S[compiler] + eager_s / n_images * 2 * timed_images(batch_size, lanes)) / SHARE
    if eager_s < pays_from_s:
        return eager, f"eager: the network will take about {eager_s:.0f} s, and compiling pays from {pays_from_s:.0f} s"
    eager_s = n_images * image_s(eager, extractor, batch_size, lanes)
    began = time.perf_counter()
    compiled = prepare(extractor, batch_size=batch_size, compiler=compiler)
    took_s = time.perf_counter() - began
    gain = eager_s / (n_images * image_s(compiled, extractor, batch_size, lanes))
    said = f"{compiler} is {gain:.2f} x as fast as eager on this network, compiled in {took_s:.0f} s"
    if gain < WORTH:
        return eager, f"eager: {said}"
    return compiled, f"{compiler}: {said}; eager would take {eager_s:.0f} s"


def timed_images(batch_size: int, lanes: int) -> int:
    """Return how many images a network computes to be timed."""
    return lanes * (ROUNDS + 1) * batch_size


def compiler_for(extractor: Extractor) -> str | None:
    """Return the compiler that suits the device and is there, if the network can be compiled."""
    if not isinstance(extractor.cut.module, fx.GraphModule):
        return None
    if extractor.device.type == "cpu" and importlib.util.find_spec("openvino"):
        return "openvino"
    return "inductor" if extractor.device.type == "cuda" or has_cpp_compiler() else None


def image_s(runner: Runner, extractor: Extractor, batch_size: int, lanes: int) -> float:
    """Measure the seconds that an image takes, all lanes at work."""
    side = extractor.recipe.preprocessing.crop_size
    pixels = torch.randint(
        256, (batch_size, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    pixels = pixels.to(extractor.device).contiguous(memory_format=torch.channels_last)
    together = threading.Barrier(lanes)
    spans: list[tuple[float, float]] = []
    with Crew() as crew:
        for i in range(lanes):
            crew.start(f"time {i}", lambda: spans.append(_timed(runner.lane, pixels, together)))
        crew.join()
        crew.check()
    took = max(ended for _, ended in spans) - min(began for began, _ in spans)
    return took / (lanes * ROUNDS * batch_size)


@torch.inference_mode()
def _timed(lane: Callable[[], Lane], pixels: Tensor, together: threading.Barrier) -> tuple[float, float]:
    """Run a lane of its own thread: when it began and when it ended."""
    if pixels.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        run = lane()
        _finish(run(pixels))
    except BaseException:
        together.abort()  # the others would wait for ever
        raise
    try:
        together.wait()
    except threading.BrokenBarrierError as error:
        raise Ended from error
    began = time.perf_counter()
    for _ in range(ROUNDS):
        _finish(run(pixels))
    return began, time.perf_counter()


def _finish(rows: dict[str, Tensor]) -> None:
    """Wait for a device."""
    for values in rows.values():
        values.cpu()
