"""A million rows from the cache: time and memory of fits that never hold them all.

    python -m benchmarks.fit.scale [--quick] [--work DIR]

Writes a feature set of 1,000,000 x 2,048 float16, 4 GB, into a folder of its own, and removes it at the end. `--quick`
takes 100,000 x 512.
"""

import argparse
import hashlib
import json
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from benchmarks.extract.harness import Figures, Goal, Numbers, Skipped, timed
from classify.probe.memory import plan_memory
from classify.probe.moments import scalers
from classify.probe.objective import Asked
from classify.probe.ridge import fit_ridge, fold_path, targets
from classify.probe.rows import Rows, stored_rows
from classify.probe.softmax import fit_softmax
from extract.recipe import Preprocessing, Recipe, Tap, weights_digest
from extract.record import Record
from extract.store.index import Entry, write_index
from extract.store.reader import INDEX, SHARDS, FeatureSet
from extract.store.shards import Rows as ShardRows
from extract.store.shards import read_shard, write_shard

FULL, QUICK = (1_000_000, 2_048), (100_000, 512)
SHARD_ROWS = 4_096
CLASSES, FOLDS = 10, 5
ALPHAS = np.logspace(1, 6, 10)
LIMIT_GB = 24.0
LAYER = "penultimate"
WEIGHTS = {"weight": np.zeros(1, np.float32)}


def write_features(folder: Path, n: int, dims: Mapping[str, int]) -> Path:
    """Write a feature set of positive, correlated features of classes that overlap, shard by shard: -> its index.

    `dims` says of every tap how many features it has.
    """
    preset = Preprocessing(32, 32, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    weights, taps = weights_digest(WEIGHTS), tuple(Tap(layer) for layer in dims)
    recipe = Recipe("builtin:x", weights, taps, tuple(dims), preset, "pillow", "fp32", "float16")
    folder = folder / recipe.key[:12]
    (folder / SHARDS).mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(save(WEIGHTS))
    rng = np.random.default_rng(0)
    fall = np.geomspace(1, 0.1, 64)[:, None]
    loadings = {layer: (rng.normal(size=(64, d)) * fall).astype(np.float32) for layer, d in dims.items()}
    centres = (rng.normal(size=(CLASSES, 64)) * 0.35).astype(np.float32)
    entries, shards = [], []
    for start in range(0, n, SHARD_ROWS):
        y = rng.integers(0, CLASSES, min(SHARD_ROWS, n - start))
        hidden = centres[y] + rng.standard_normal((len(y), 64), np.float32)
        X = {layer: _features(hidden, loadings[layer], rng) for layer in dims}
        contents = [hashlib.sha256(str(start + at).encode()).digest() for at in range(len(y))]
        digests = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 32)
        name = write_shard(folder / SHARDS, ShardRows(X, digests, [None] * len(y)), recipe.key)
        shards.append(read_shard(folder / SHARDS / name, recipe.key))
        ids = (f"{start + at}.png" for at in range(len(y)))
        labels = (f"class {code}" for code in y.tolist())
        records = (Record(id_, id_, label, None, None) for id_, label in zip(ids, labels, strict=True))
        entries += [Entry(record, content) for record, content in zip(records, contents, strict=True)]
    write_index(folder / INDEX, recipe, entries, shards, {layer: (d,) for layer, d in dims.items()}, "made up")
    return folder / INDEX


def _features(hidden: np.ndarray, loadings: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((len(hidden), loadings.shape[1]), np.float32)
    return np.maximum(hidden @ loadings + noise - 0.5, 0).astype(np.float16)


def by_folds(rows: Rows, y: np.ndarray) -> Numbers:
    """Judge ten penalties on five folds."""
    chance = np.random.default_rng(0).permutation(len(y)) % FOLDS
    folds = [(np.flatnonzero(chance != fold), np.flatnonzero(chance == fold)) for fold in range(FOLDS)]
    found = fold_path(rows, targets(y, CLASSES), folds, ALPHAS, "std")
    return {"accuracy": float((found.predicted == y).mean(axis=1).max())}


def once(rows: Rows, y: np.ndarray) -> Numbers:
    """Fit one penalty on all rows."""
    fitted = fit_ridge(rows, targets(y, CLASSES), 1000.0, "std")
    return {"accuracy": _accuracy(rows, y, fitted.scores)}


def softmax(rows: Rows, y: np.ndarray) -> Numbers:
    """Fit one logistic regression on all rows."""
    every = np.ones((1, len(y)), bool)
    fitted = scalers(rows, every, "std")
    found = fit_softmax(Asked(rows, y, every, fitted, CLASSES), [(0, 0.01)])
    return {"converged": bool(found.converged[0]), "steps": int(found.n_iter[0])}


def _accuracy(rows: Rows, y: np.ndarray, scores: Callable[[np.ndarray], np.ndarray]) -> float:
    at, block = next(iter(rows.blocks()))
    return float((scores(block).argmax(axis=1) == y[at]).mean())


FITS: dict[str, Callable[[Rows, np.ndarray], Numbers]] = {
    "ridge, 10 penalties on 5 folds": by_folds,
    "ridge, one fit": once,
    "logistic, one fit": softmax,
}


@contextmanager
def own_memory(found: Numbers) -> Iterator[None]:
    """Note the most memory that was taken: `own_gb` by the process, `peak_gb` with the pages of files that it maps."""
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.05):
            most = max(most, _anonymous_kb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    done.set()
    watcher.join()
    found["own_gb"] = most / 1e6
    found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _anonymous_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def measured(folder: Path, name: str) -> Numbers:
    """Carry out one fit in this process."""
    found: Numbers = {}
    with own_memory(found):
        features = FeatureSet(next(folder.glob(f"*/{INDEX}"))).check()
        rows = stored_rows(features, (LAYER,), "std", features.rows())
        began = time.perf_counter()
        found |= FITS[name](rows, features.labels[features.rows()])
        found["s"] = round(time.perf_counter() - began, 1)
    found["plan"] = plan_memory(*rows.shape, CLASSES, 1).words
    return found


def scale(quick: bool, work: Path | None = None) -> Figures:
    """Write the features, and fit them in a process each."""
    n, dims = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(dir=work, prefix="scale-") as temporary:
        if shutil.disk_usage(temporary).free < 4 * n * dims:
            raise Skipped(f"{n:,} x {dims:,} takes {2 * n * dims / 1e9:.1f} GB: there is no room for twice as much")
        write_features(Path(temporary), n, {LAYER: dims})
        command = [sys.executable, "-m", "benchmarks.fit.scale", "--child"]
        rows = [{"what": name, **timed([*command, name, "--work", temporary])} for name in FITS]
    most = max(row["peak_gb"] for row in rows)
    goal = Goal(f"{n:,} x {dims:,} float16 in {LIMIT_GB:g} GB", f"{most:.2f} GB at most", most <= LIMIT_GB)
    note = f"{n:,} x {dims:,} float16, streamed. `own gb` is what the process takes, `peak gb` with pages of files."
    return Figures(rows, note, [goal])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit.scale", description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100,000 x 512")
    parser.add_argument("--work", type=Path, help="where there is room")
    parser.add_argument("--child", choices=FITS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    found = measured(options.work, options.child) if options.child else asdict(scale(options.quick, options.work))
    print(json.dumps(found, indent=None if options.child else 2))


if __name__ == "__main__":
    main()
