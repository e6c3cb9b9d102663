"""Damage to the files of a cache and of a bundle: found, told by name, and never read as if it were right."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.faults.harness import (
    Numbers,
    flipped,
    holding,
    settled,
    small_bundle,
    small_spec,
    warm,
)
from classify.bundle import read_bundle
from extract import run
from extract.errors import BundleError, OffshelfError, StoreError
from extract.store import FeatureSet
from extract.store.verify import verify
from tests.tiny import rows_of, tiny_folder

SHARES = {"shards/*.h5": 2000, "features.h5": 500, "golden.h5": 70, "weights.safetensors": 60, "recipe.json": 60}
SHARES |= {"../contents.h5": 60, "bundle": 250}
"""Of every 3,000 flipped bits, how many in files of each kind."""

Rows = dict[str, np.ndarray]


def read_all(index: Path) -> Rows:
    """Return every row of every tap, by tap and id; raises StoreError."""
    with FeatureSet(index).check() as features:
        return {f"{layer} {name}": row for layer in features.layers for name, row in rows_of(features, layer).items()}


def equal(got: Rows, expected: Rows) -> bool:
    """Tell whether these are the very rows, bit by bit."""
    return got.keys() == expected.keys() and all(
        np.array_equal(row, expected[name], equal_nan=True) for name, row in got.items()
    )


def bitflip(folder: Path, n: int) -> Numbers:
    """Flip one bit in a file: `cache verify`, or reading the bundle, tells it; what reads as rows is right."""
    warm(4)
    data, chance = settled(tiny_folder(folder / "pets", per_class=6)), np.random.default_rng(0)
    bundle = small_bundle(data, folder)
    index = next((folder / "cache").glob("*/*/features.h5"))
    expected, counted = read_all(index), Counter(n=0, found=0, told_by_reading=0, wrong_rows=0)
    missed: Counter[str] = Counter()
    for where, share in SHARES.items():
        paths = sorted(bundle.iterdir()) if where == "bundle" else sorted(index.parent.glob(where))
        for _ in range(max(1, round(n * share / sum(SHARES.values())))):
            path = paths[int(chance.integers(len(paths)))]
            with holding(path, flipped(path.read_bytes(), chance)):
                outcome = _bundle_outcome(bundle) if where == "bundle" else _cache_outcome(path, index, expected)
            counted.update(outcome)
            missed[path.name if where == "bundle" else where] += 1 - outcome["found"]
    unfound = {name: count for name, count in missed.items() if count}
    passed = counted["found"] == counted["n"] and not counted["wrong_rows"]
    return {**counted, **({"not_found_in": unfound} if unfound else {}), "passed": passed}


def _cache_outcome(path: Path, index: Path, expected: Rows) -> Counter[str]:
    found = {Path(problem["file"]).resolve() for problem in verify((), index.parents[2])["problems"]}
    outcome = Counter(n=1, found=int(path.resolve() in found))
    try:
        outcome["wrong_rows"] += not equal(read_all(index), expected)
    except StoreError:
        outcome["told_by_reading"] += 1
    return outcome


def _bundle_outcome(bundle: Path) -> Counter[str]:
    try:
        read_bundle(bundle)
    except BundleError:
        return Counter(n=1, found=1, told_by_reading=1)
    return Counter(n=1)


def _shards(index: Path) -> list[Path]:
    return sorted((index.parent / "shards").glob("*.h5"))


def _swap(one: Path, other: Path) -> None:
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def _truncate(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def _to_zeros(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:1024] + bytes(len(data) - 1024))


def _as_link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


Deed = Callable[[Path, Path], object]
SWAPS: dict[str, Deed] = {
    "a shard is missing": lambda index, _: _shards(index)[0].unlink(),
    "a shard is empty": lambda index, _: _truncate(_shards(index)[0], 0),
    "a shard has its first half": lambda index, _: _truncate(_shards(index)[1], _shards(index)[1].stat().st_size // 2),
    "a shard lacks its last byte": lambda index, _: _truncate(_shards(index)[1], -1),
    "a shard goes on": lambda index, _: _shards(index)[0].write_bytes(_shards(index)[0].read_bytes() + b"more"),
    "a shard is zeros behind its begin": lambda index, _: _to_zeros(_shards(index)[0]),
    "two shards have each other's names": lambda index, _: _swap(*_shards(index)[:2]),
    "a shard is there twice, as another": lambda index, _: shutil.copyfile(*_shards(index)[:2]),
    "a shard is that of another recipe": lambda index, other: shutil.copyfile(_shards(other)[0], _shards(index)[0]),
    "a shard is a folder": lambda index, _: _as_folder(_shards(index)[0]),
    "a shard leads nowhere": lambda index, _: _as_link(_shards(index)[0], Path("nowhere")),
    "a shard leads to another": lambda index, _: _as_link(_shards(index)[0], _shards(index)[1]),
    "a shard is there twice, under a name of no content": lambda index, _: shutil.copyfile(
        _shards(index)[0], index.parent / "shards" / "copy.h5"
    ),
    "the index is missing": lambda index, _: index.unlink(),
    "the index is empty": lambda index, _: _truncate(index, 0),
    "the index has its first half": lambda index, _: _truncate(index, index.stat().st_size // 2),
    "the index is that of another recipe": lambda index, other: shutil.copyfile(other, index),
    "the index is a shard": lambda index, _: shutil.copyfile(_shards(index)[0], index),
    "the index is older": lambda index, _: shutil.copyfile(index.with_name("older"), index),
    "the index is older, and its shards are gone": lambda index, _: (
        shutil.copyfile(index.with_name("older"), index),
        _shards(index)[0].unlink(),
        _shards(index)[1].unlink(),
    ),
    "the folder is that of another recipe": lambda index, other: shutil.copytree(
        other.parent, index.parent, dirs_exist_ok=True
    ),
    "the weights are those of another recipe": lambda index, other: shutil.copyfile(
        other.with_name("weights.safetensors"), index.with_name("weights.safetensors")
    ),
    "the recipe is another one": lambda index, other: shutil.copyfile(
        other.with_name("recipe.json"), index.with_name("recipe.json")
    ),
    "the golden rows are those of another recipe": lambda index, other: shutil.copyfile(
        other.with_name("golden.h5"), index.with_name("golden.h5")
    ),
    "the golden rows are empty": lambda index, _: _truncate(index.with_name("golden.h5"), 0),
    "what is known of files is that of others": lambda index, other: shutil.copyfile(
        other.parents[1] / "contents.h5", index.parents[1] / "contents.h5"
    ),
}


def swap(folder: Path) -> Numbers:
    """Exchange, cut and remove files: reading tells which one, or is right; after `verify --repair` all is right."""
    warm(4)
    data = tiny_folder(folder / "pets", per_class=6)
    odd = settled(tiny_folder(folder / "odd", seed=500))
    index, other, expected = _two_sets(data, odd, folder)
    read, repaired = dict[str, str](), dict[str, str]()
    for name, deed in SWAPS.items():
        shutil.rmtree(folder / "cache")
        shutil.copytree(folder / "whole", folder / "cache", symlinks=True)
        deed(index, other)
        read[name], repaired[name] = _outcome(index, expected), _healed(data, index, expected)
    first, then = Counter(read.values()), Counter(repaired.values())
    wrong = [name for name in SWAPS if "silent" in (read[name], repaired[name])]
    counted = {"n": len(SWAPS), "named": first["named"], "rows_right": first["right"], "silent": len(wrong)}
    counted |= {"healed": then["right"], "left_to_the_user": then["named"]}
    return {**counted, **({"silent_cases": wrong} if wrong else {}), "passed": not wrong}


def _two_sets(data: Path, odd: Path, folder: Path) -> tuple[Path, Path, Rows]:
    """Make a cache of two recipes, one with an older index beside its own: both indexes, and the rows of the first."""
    cache = folder / "cache"
    hidden = data / "dog/05.jpg"
    hidden.rename(folder / hidden.name)
    index = Path(run.extract(small_spec(data, cache))["path"])
    shutil.copyfile(index, index.with_name("older"))
    (folder / hidden.name).rename(hidden)
    run.extract(small_spec(data, cache))
    other = Path(run.extract(small_spec(odd, cache, taps=("layer1",)))["path"])
    shutil.copytree(cache, folder / "whole")
    return index, other, read_all(index)


def _outcome(index: Path, expected: Rows) -> str:
    """Say what reading comes to: "right" or "silent" by the rows, or "named" where an error names a file."""
    try:
        got = read_all(index)
    except OffshelfError as error:
        return "named" if Path(error.where).is_relative_to(index.parent) and error.remedy else "silent"
    right = got and all(np.allclose(row, expected[name], rtol=1e-5, atol=1e-6) for name, row in got.items())
    return "right" if right else "silent"


def _healed(data: Path, index: Path, expected: Rows) -> str:
    """Repair, extract again, and say what reading comes to then."""
    try:
        verify((), index.parents[2], repair=True)
        done = run.extract(small_spec(data, index.parents[2]))
    except OffshelfError as error:
        return "named" if Path(error.where).is_relative_to(index.parent) else "silent"
    return _outcome(index, expected) if done["rows"] == len(expected) else "silent"
