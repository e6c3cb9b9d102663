"""What a GPU can do at most: decode JPEGs, run a compiled network, and both with what lies between them, on itself.

Run as a program it prints images/s; on `cpu` the same code runs, for tests of it.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Barrier

import torch
from torch import Tensor, nn

from benchmarks.extract.rivals.common import HEADS, photos
from extract.decoding.batched import decode_batch
from extract.forward import Extractor, build_extractor
from extract.lanes import lanes_on
from extract.record import Failure
from extract.resample import render_on
from extract.runners import prepare
from extract.spec import BackboneSpec, ExtractSpec
from extract.views import looks

WINDOW_S, WARM_UPS = 3.0, 3
MODES = (None, "reduce-overhead", "max-autotune")
"""Of torch.compile: Inductor alone, with CUDA graphs, and with kernels chosen by trial."""


def rate(work: Callable[[], object], images: int, device: torch.device, window_s: float = WINDOW_S) -> float:
    """Return images/s of work that does so many at a time, after it has warmed up."""
    for _ in range(WARM_UPS):
        work()
    _wait(device)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < window_s:
        for _ in range(4):
            work()
        _wait(device)
        done += 4 * images
    return done / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def forward(network: str, device: torch.device, batch: int) -> dict[str, float]:
    """Run torchvision's network, compiled in bf16 and channels last, on a batch that lies there: by mode."""
    from torchvision.models import get_model

    model = get_model(network, weights=None).eval()
    model.set_submodule(HEADS[network], nn.Flatten())
    model = model.to(device, torch.bfloat16, memory_format=torch.channels_last)
    images = torch.randn(batch, 3, 224, 224, device=device, dtype=torch.bfloat16)
    images = images.contiguous(memory_format=torch.channels_last)
    found = {}
    for mode in MODES if device.type == "cuda" else MODES[:1]:
        torch.compiler.reset()
        compiled = torch.compile(model, mode=mode)
        with torch.inference_mode():
            found[mode or "default"] = rate(lambda run=compiled: run(images), batch, device)
    return found


def decoded(jpegs: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Decode JPEGs on the device, all of which must be good."""
    images = decode_batch(list(jpegs), device)
    failures = [image for image in images if isinstance(image, Failure)]
    if failures:
        raise RuntimeError(f"{len(failures)} photos are bad: {failures[0].reason}")
    return [image for image in images if isinstance(image, Tensor)]


def resident(extractor: Extractor, images: Sequence[Tensor], compiler: str) -> float:
    """Resize images that lie on the device, run ours on them and bring the rows back, in lanes: images/s of all."""
    lanes = lanes_on(extractor.device)
    runner = prepare(extractor, batch_size=len(images), compiler=compiler)
    together = Barrier(lanes)

    def lane(_: int) -> float:
        stream = torch.cuda.stream(torch.cuda.Stream(extractor.device)) if extractor.device.type == "cuda" else None
        with torch.inference_mode(), stream or nullcontext():
            work = _resident(extractor, images, runner.lane())
            together.wait()
            return rate(work, len(images), extractor.device)

    with ThreadPoolExecutor(lanes) as pool:
        return sum(pool.map(lane, range(lanes)))


def _resident(extractor: Extractor, images: Sequence[Tensor], run: Callable[..., dict]) -> Callable[[], object]:
    """Return the work of one lane on one batch."""
    preset, device = extractor.recipe.preprocessing, extractor.device
    seen = [looks(image.shape[0], image.shape[1], preset, digest=b"", views=1, seed=0) for image in images]
    chosen = [look for look in seen if not isinstance(look, Failure)]
    shape = len(images), 3, preset.crop_size, preset.crop_size
    pixels = torch.empty(shape, dtype=torch.uint8, device=device).contiguous(memory_format=torch.channels_last)

    def work() -> object:
        render_on(images, chosen, preset.interpolation, pixels)
        return run(pixels)["penultimate"].cpu()

    work()  # so that all are compiled before they start together
    return work


def ceilings(network: str, folder: Path, device: torch.device, batch: int, compiler: str) -> dict[str, object]:
    """Measure one network on one device."""
    paths = photos(folder)[:batch]
    jpegs = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in paths]
    spec = ExtractSpec("", backbone=BackboneSpec(network, "none"), precision="bf16", device=str(device))
    with torch.inference_mode():
        images = decoded(jpegs, device)
        decode = rate(lambda: decoded(jpegs, device), batch, device)
    found = {"forward": forward(network, device, batch), "device_decode": decode}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return found | {"resident": resident(build_extractor(spec), images, compiler), "device": name}


def main() -> None:
    """Print the ceilings as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=HEADS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--compile", default="inductor")
    asked = parser.parse_args()
    print(json.dumps(ceilings(asked.network, asked.folder, asked.device, asked.batch, asked.compile)))


if __name__ == "__main__":
    main()
