"""Networks for the tests of runners: small, with BatchNorm statistics that a mistake in folding would show in."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from extract.forward import Extractor, build_extractor, freeze
from extract.pooling import make_pool
from extract.recipe import Preprocessing, Recipe, Tap
from extract.runners import Lane, Runner
from extract.spec import BackboneSpec
from extract.taps import GraphTrunk, HookTrunk
from tests.tiny import tiny_spec

SMALL = (("resize_size", 64), ("crop_size", 64))
PRESET = Preprocessing(32, 32, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
TOLERANCE = {"fp32": 1e-5, "bf16": 3e-2}
"""Distance of all rows of a tap to the exact ones, over their length."""


def lively(network: nn.Module) -> nn.Module:
    """Give each BatchNorm statistics and weights that are not those of none."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias):
                nn.init.normal_(values, std=0.2)
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 1.5)
    return network


def named(model: str, *taps: str, **changes) -> Extractor:
    """The extractor of a torchvision or built-in network, for images of 64 x 64."""
    backbone = BackboneSpec(model, "none", overrides=SMALL)
    extractor = build_extractor(tiny_spec("", Path("cache"), backbone=backbone, taps=taps, **changes))
    freeze(lively(extractor.cut.module))
    return extractor


def of_module(
    network: nn.Module, *taps: str, precision: str = "fp32", store: str = "float32", hooks=False
) -> Extractor:
    """The extractor of any module, for images of 32 x 32."""
    torch.manual_seed(1)
    trunk = HookTrunk(network, 32) if hooks else GraphTrunk(network)
    parsed = tuple(map(Tap.parse, taps))
    nodes = tuple(trunk.penultimate() if tap.layer == "penultimate" else trunk.resolve(tap.layer) for tap in parsed)
    cut = trunk.cut({tap.name: (node, make_pool(tap.pool)) for tap, node in zip(parsed, nodes, strict=True)})
    freeze(lively(cut.module)).to(memory_format=torch.channels_last)
    recipe = Recipe("test:module", "0" * 64, parsed, nodes, PRESET, "", precision, store)
    return Extractor(recipe, cut, torch.device("cpu"), {})


def pixels(extractor: Extractor, n: int, *, seed: int = 0) -> Tensor:
    """Noise: (n, 3, S, S) uint8, channels last."""
    side = extractor.recipe.preprocessing.crop_size
    noise = torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return noise.contiguous(memory_format=torch.channels_last)


def in_lanes(runner: Runner, work: list[Callable[[Lane], object]]) -> None:
    """Run each piece of work in a thread of its own, with a lane of its own, all at the same time."""
    together, errors = threading.Barrier(len(work)), []

    def run(each: Callable[[Lane], object]) -> None:
        try:
            torch.set_num_threads(1)
            lane = runner.lane()
            together.wait()
            each(lane)
        except BaseException as error:
            together.abort()
            errors.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def distances(rows: Mapping[str, Tensor], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Distance of all rows of each tap to the expected ones, over their length."""
    assert rows.keys() == expected.keys()
    found = {}
    for name, values in expected.items():
        assert rows[name].shape == values.shape, name
        found[name] = float(np.linalg.norm(rows[name].float().numpy() - values) / np.linalg.norm(values))
    return found


def assert_close(rows: Mapping[str, Tensor], expected: Mapping[str, np.ndarray], tolerance: float) -> None:
    far = {name: distance for name, distance in distances(rows, expected).items() if not distance <= tolerance}
    assert not far
