"""What may change a feature, and what may not: batches, workers, lanes, kills; the fields of a key; drifts."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from benchmarks.faults.harness import Numbers, rows_at, settled, small_spec, spread, warm
from extract import forward, golden, run
from extract.engines import local
from extract.errors import DriftError
from extract.forward import Extractor, build_extractor
from extract.recipe import Preprocessing, Recipe, Tap
from tests.extract import test_golden
from tests.extract.test_spec import CHANGED, CHANGED_PRESET, PRESET, RECIPE
from tests.faults.storage import Fault, forked, kills
from tests.tiny import tiny_folder

IMAGES = 40
BATCHES, WORKERS, LANES = (1, 3, 8, 32), (1, 2, 4), (1, 3)
TOLERANCE = 1e-5


def relative(rows: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Return the largest distance of a row to the expected one, over its length."""
    return max(float(np.linalg.norm(rows[name] - row) / np.linalg.norm(row)) for name, row in expected.items())


def repro(folder: Path) -> Numbers:
    """Extract with every batch size, number of workers and of lanes; and go on from a kill at every tenth call."""
    data = settled(tiny_folder(folder / "pets", per_class=IMAGES // 2))
    spec = small_spec(data, folder / "cache", weights="auto", batch_size=32)
    expected = rows_at(Path(run.extract(spec)["path"]))

    def other(numbered: tuple[int, tuple[int, int, int]]) -> float:
        number, (batch, workers, lanes) = numbered
        changed = replace(spec, cache=folder / str(number), batch_size=batch, workers=workers)
        with mock.patch.object(local, "lanes_on", return_value=lanes):
            return relative(rows_at(Path(run.extract(changed)["path"])), expected)

    grid = list(itertools.product(BATCHES, WORKERS, LANES))
    distances = spread(other, list(enumerate(grid)))
    resumed = _resumed(data, folder, expected)
    counted = {"n": len(grid), "largest_distance": max(distances), "bitwise_equal": distances.count(0.0)}
    counted |= {"resumed_after_kills": len(resumed), "largest_distance_resumed": max(resumed)}
    return {**counted, "passed": max(*distances, *resumed) <= TOLERANCE}


def _resumed(data: Path, folder: Path, expected: dict[str, np.ndarray]) -> list[float]:
    """Kill an extraction at calls spread over it, and measure the rows of those that went on from there."""
    warm(8)
    spec = small_spec(data, folder / "killed", weights="auto", batch_size=4)

    def struck(fault: Fault) -> list[str]:
        fault.arm()
        run.extract(spec)
        return fault.names

    names = forked(lambda: struck(Fault(spec.cache)))["result"]
    distances = []
    for fault in list(kills(names))[3::10]:
        shutil.rmtree(spec.cache)
        assert forked(lambda fault=fault: struck(Fault(spec.cache, **fault)))["code"] < 0
        distances.append(relative(rows_at(Path(run.extract(spec)["path"])), expected))
    return distances


def _other_mean(pixels: torch.Tensor, preset: Preprocessing) -> torch.Tensor:
    return NORMALISE(pixels, replace(preset, mean=(0.49, 0.48, 0.45)))


NORMALISE = forward.normalise
DRIFTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "antialias off": lambda: _pixels("antialias off"),
    "crop": lambda: _pixels("crop at the corner"),
    "bgr": lambda: _pixels("BGR"),
    "mean": lambda: mock.patch.object(forward, "normalise", _other_mean),
    "mean, on the fast road alone": lambda: _fast("another normalisation"),
    "dtype": lambda: _fast("half precision"),
    "folding": lambda: _fast("a folded weight that is off"),
    "train mode": lambda: _network(test_golden.train),
    "batch norm": lambda: _network(test_golden.shift_mean),
    "weights": lambda: _network(test_golden.scale_weight),
}
"""What no key lists, as a patch."""


@contextmanager
def _pixels(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        test_golden.drift(name, patch)
        yield


@contextmanager
def _fast(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        test_golden.FAST[name](patch)
        yield


def _network(change: Callable[[Extractor], None]) -> AbstractContextManager[object]:
    """Patch the extractor that is built."""

    def built(spec: run.ExtractSpec) -> Extractor:
        extractor = build_extractor(spec)
        change(extractor)
        return extractor

    return mock.patch.object(run, "build_extractor", built)


def key(folder: Path) -> Numbers:
    """Change every field of the recipe, every option that is none of it, and what no key lists."""
    moved = [replace(RECIPE, **{field.name: CHANGED[field.name]}).key for field in fields(Recipe)]
    presets = [replace(PRESET, **{field.name: CHANGED_PRESET[field.name]}) for field in fields(Preprocessing)]
    moved += [replace(RECIPE, preprocessing=preset).key for preset in presets]
    moved += [replace(RECIPE, taps=(tap,)).key for tap in (Tap("layer3"), Tap("layer4", "max"))]
    spec = small_spec(folder / "a", folder / "cache")
    options = {"data": "b", "name": "other", "root": folder, "cache": folder / "other", "batch_size": 7, "workers": 3}
    options |= {"device": "auto", "rehash": True, "retry_failed": True, "wait": True}
    options |= {"compile": "inductor", "profile": folder / "trace.json"}
    own = build_extractor(spec).recipe.key
    still = [build_extractor(replace(spec, **{name: value})).recipe.key for name, value in options.items()]
    refused = [name for name, drift in DRIFTS.items() if _refuses(folder / name, drift)]
    counted = {
        "n": len(moved) + len(still) + len(DRIFTS),
        "fields": len(moved),
        "moved": sum(other != RECIPE.key for other in moved),
    }
    counted |= {"options": len(still), "moved_by_options": sum(other != own for other in still)}
    counted |= {"drifts": len(DRIFTS), "refused": len(refused)}
    exact = counted["moved"] == len(moved) and not counted["moved_by_options"] and len(refused) == len(DRIFTS)
    return {**counted, "passed": exact}


def _refuses(folder: Path, drift: Callable[[], AbstractContextManager[object]]) -> bool:
    """Tell whether a drift is refused once there are rows, and no shard is written then."""
    data = tiny_folder(folder / "pets", per_class=2)
    spec = small_spec(data, folder / "cache", weights="auto")
    run.extract(spec)
    tiny_folder(data, per_class=3)
    before = list((folder / "cache").glob("*/*/shards/*"))
    golden.prove_pixels.cache_clear()
    try:
        with drift():
            run.extract(spec)
    except DriftError:
        return list((folder / "cache").glob("*/*/shards/*")) == before
    finally:
        golden.prove_pixels.cache_clear()
    return False
