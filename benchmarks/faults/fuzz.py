"""Hostile and mutated files in the place of those of a cache and of a bundle: refused, and HDF5 never sees one."""

import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.faults.damage import Rows, equal, read_all
from benchmarks.faults.harness import (
    Numbers,
    holding,
    most_megabytes,
    mutated,
    shards_below,
    small_bundle,
    spread,
    warm,
)
from classify.bundle import FILES, Bundle, read_bundle
from extract.errors import BundleError, OffshelfError, StoreError
from extract.store import FeatureSet, open_features
from extract.store.folders import CACHE_TAG, TAG
from extract.store.inventory import inventory
from extract.store.known import read_known
from extract.store.sealed import BLOCK_BYTES, FOOTER_BYTES
from extract.store.shards import read_shard
from extract.store.verify import verify
from tests.attacks import test_hostile_hdf5 as hostile
from tests.extract.store import tiny_cache
from tests.tiny import tiny_folder


class NoHDF5:
    """Counts who asks HDF5 to open a file, and refuses."""

    def __init__(self) -> None:
        self.asked = 0

        def refuse(*_: object, **__: object) -> None:
            self.asked += 1
            raise AssertionError("HDF5 was asked to open a file")

        h5py.File = h5py.h5f.open = h5py.h5f.open_file_image = refuse  # type: ignore[assignment] in this process only


@contextmanager
def _opens(inside: Path) -> Iterator[list[str]]:
    """Collect the files outside a folder that are opened while the block runs; Python's own modules do not count."""
    outside: list[str] = []
    armed = True

    def note(event: str, given: tuple[Any, ...]) -> None:
        if armed and event == "open" and isinstance(given[0], str | bytes | Path):
            path = Path(str(given[0])).absolute()
            if not path.is_relative_to(inside) and not path.is_relative_to(sys.prefix) and path.suffix != ".py":
                outside.append(str(path))

    sys.addaudithook(note)  # there is no way to take it away again
    yield outside
    armed = False


def hostile_h5(folder: Path) -> Numbers:
    """Put hostile HDF5 in the place of every file of a cache: refused in no time, and HDF5 never sees it."""
    images = {fill.__name__: hostile.image_of(fill) for fill in hostile.HOSTILE}
    features = hostile.feature_set(folder / "cache", [hostile.entry(0)], [hostile.shard_of([0, 1])])
    (folder / "cache" / TAG).write_bytes(CACHE_TAG)
    shard, watch = shards_below(folder / "cache")[0], NoHDF5()
    before, slowest, accepted, n = most_megabytes(), 0.0, [], 0
    readers: dict[str, tuple[Path, Callable[[], object]]] = {
        "index": (features.path, lambda: open_features("set", folder / "cache")),
        "shard": (shard, lambda: read_shard(shard, hostile.RECIPE.key)),
        "shard, read": (shard, lambda: FeatureSet(features.path).read("a")),
    }
    with _opens(folder) as outside:
        for kind, (path, read) in readers.items():
            for name, image in images.items():
                for wrap, wrapped in hostile.WRAPS.items():
                    began = time.perf_counter()
                    with holding(path, wrapped(kind.partition(",")[0], image)):
                        n += 1
                        accepted += [] if _refused(read) else [f"{kind}: {name} {wrap}"]
                        verify((), folder / "cache")
                        inventory(folder / "cache")
                    slowest = max(slowest, time.perf_counter() - began)
    counted = {
        "n": n,
        "files": len(images) * len(hostile.WRAPS),
        "refused": n - len(accepted),
        "asked_hdf5": watch.asked,
    }
    counted |= {"opened_elsewhere": len(outside), "slowest_s": round(slowest, 3)}
    counted["more_mb"] = round(most_megabytes() - before)
    safe = not accepted and not watch.asked and not outside
    return {**counted, "passed": safe and slowest < 2 and counted["more_mb"] < 300}


def _refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except StoreError:
        return True
    return False


def h5fuzz(folder: Path, n: int) -> Numbers:
    """Change bytes of every kind of sealed file, half of the time with all digests made right again, and read them."""
    parts = spread(lambda seed: _fuzzed(folder / str(seed), seed, n // 2), range(2))
    counted = Counter[str]()
    for part in parts:
        slowest = max(counted.pop("slowest_ms", 0), part.pop("slowest_ms"))
        counted.update(part)
        counted["slowest_ms"] = slowest
    bad = ("wrong_rows", "other_errors", "asked_hdf5")
    return {**counted, "passed": not any(counted[name] for name in bad) and counted["slowest_ms"] < 2000}


def _fuzzed(cache: Path, seed: int, n: int) -> Numbers:
    made = tiny_cache.put_set(cache, [[0, 1, 2], [3, 4]])
    chance, watch, expected = np.random.default_rng(seed), NoHDF5(), read_all(made.index)
    paths = [*shards_below(cache), made.index, made.path / "golden.h5", cache / "set" / "contents.h5"]
    counted = Counter(n=0, resealed=0, refused=0, right=0, wrong_rows=0, other_errors=0, asked_hdf5=0, slowest_ms=0)
    for number in range(n):
        path, reseal = paths[int(chance.integers(len(paths)))], bool(number % 2)
        kind = path.parent.name[:5] if path.parent.name == "shards" else {"features": "index"}.get(path.stem, path.stem)
        data = _resealed(path.read_bytes(), kind, chance) if reseal else mutated(path.read_bytes(), chance)
        began = time.perf_counter()
        with holding(path, data):
            counted[_reading(made.index, path, expected, reseal)] += 1
        counted["slowest_ms"] = max(counted["slowest_ms"], round(1000 * (time.perf_counter() - began)))
        counted.update(n=1, resealed=int(reseal))
    return {**counted, "asked_hdf5": watch.asked}


def _resealed(data: bytes, kind: str, chance: np.random.Generator) -> bytes:
    """Change the HDF5, or the table of parts, and make the digests around it right again, as an author could."""
    length = int(data[-17:-1])
    image, line = data[BLOCK_BYTES : -FOOTER_BYTES - length], data[-FOOTER_BYTES - length : -FOOTER_BYTES]
    if chance.integers(2):
        image = mutated(image, chance)
    else:
        line = mutated(line, chance, 3)
    return hostile.with_block(kind, image + line + hostile.sealed._footer(line))


def _reading(index: Path, path: Path, expected: Rows, resealed: bool) -> str:
    """Say what all readers make of it. Rows of a resealed file are its author's: they count as read, not as wrong."""
    try:
        read_known(index.parents[1] / "contents.h5")
        verify((), index.parents[2])
        same = equal(read_all(index), expected)
    except OffshelfError:
        return "refused"
    except Exception:
        traceback.print_exc()
        return "other_errors"
    return "right" if same or (resealed and path == index) else "wrong_rows"


def headfuzz(folder: Path, n: int) -> Numbers:
    """Change bytes of a bundle's files: refused, or the very same numbers."""
    warm(4)
    bundle = small_bundle(tiny_folder(folder / "pets", per_class=6), folder)
    expected = read_bundle(bundle)
    chance, paths = np.random.default_rng(0), [bundle / name for name in (*FILES, "bundle.json")]
    X = np.random.default_rng(1).normal(size=(5, expected.width))
    counted = Counter(n=n, refused=0, equal=0, other_numbers=0, other_errors=0)
    accepted: Counter[str] = Counter()
    for _ in range(n):
        path = paths[int(chance.integers(len(paths)))]
        with holding(path, mutated(path.read_bytes(), chance)):
            outcome = _bundle_reading(bundle, expected, X)
        counted[outcome] += 1
        accepted[path.name] += outcome == "other_numbers"
    others = {name: count for name, count in accepted.items() if count}
    passed = not counted["other_numbers"] and not counted["other_errors"]
    return {**counted, **({"other_numbers_in": others} if others else {}), "passed": passed}


def _bundle_reading(folder: Path, expected: Bundle, X: np.ndarray) -> str:
    try:
        got = read_bundle(folder)
    except BundleError:
        return "refused"
    except Exception:
        traceback.print_exc()
        return "other_errors"
    same = np.array_equal(*(bundle.probabilities({expected.layers[0]: X}) for bundle in (got, expected)))
    said = replace(got, arrays={}, versions={}, created="") == replace(expected, arrays={}, versions={}, created="")
    return "equal" if same and said else "other_numbers"
