"""What the fault tests share: forks of a warm process, small extractions, damage by chance."""

import contextlib
import ctypes
import functools
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import pipeline
from classify.fit import FitSpec, fit
from extract import forward, job, loader, run
from extract.spec import ExtractSpec
from extract.store import FeatureSet
from extract.store.known import FINE_NS
from extract.store.whole import damage
from tests.faults.storage import InProcess
from tests.tiny import assert_same_rows, features_of, rows_of, tiny_spec

LANES = 2
Numbers = dict[str, Any]
"""What a test measured: among it `n`, the number of faults, and `passed`."""


class Skipped(Exception):  # noqa: N818 no fault
    """What a test needs cannot be had on this machine."""


@dataclass(frozen=True)
class Child:
    """A fork at work, and the pipe on which it answers."""

    pid: int
    pipe: int

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def ended(self) -> bool:
        """Tell whether it is at its end, and leave it to `answer`."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def answer(self) -> tuple[int, str]:
        """Wait for its end: the exit code, or minus the signal, and all that it said."""
        with os.fdopen(self.pipe) as pipe:
            said = pipe.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), said


def fork(work: Callable[[int], int]) -> Child:
    """Do work in a fork of this process: it takes the descriptor of a pipe to answer on, and returns an exit code."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return Child(pid, read)
    os.close(read)
    code = 1
    try:
        code = work(write)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(work: Callable[[], Any]) -> Child:
    """Do work in a fork; `results` gives what it returned."""

    def told(pipe: int) -> int:
        said = json.dumps(work()).encode()
        with os.fdopen(pipe, "wb") as file:
            file.write(said)
        return 0

    return fork(told)


def results(*children: Child) -> list[Any]:
    """Wait for what children have worked out; raises where one came to another end."""
    answers = [child.answer() for child in children]
    if codes := [code for code, _ in answers if code]:
        raise RuntimeError(f"a process ended with code {codes[0]}")
    return [json.loads(said) for _, said in answers]


def spread(work: Callable[[Any], Any], items: Sequence[Any], lanes: int = LANES) -> list[Any]:
    """Map work over items in so many forks; results in the order of the items."""
    parts = results(*(start(lambda lane=lane: [work(item) for item in items[lane::lanes]]) for lane in range(lanes)))
    return [parts[i % lanes][i // lanes] for i in range(len(items))]


def command(arguments: Sequence[str]) -> Child:
    """Run the command in a fork that ends as a process of its own would; it says "begun" first."""

    def called(pipe: int) -> int:
        for descriptor in (1, 2):
            os.dup2(pipe, descriptor)
        os.close(pipe)
        os.write(1, b"begun\n")
        try:
            pipeline.main(list(arguments), prog_name="pipeline.py")
        except SystemExit as end:
            _leave(end.code if isinstance(end.code, int) else 1)
        return 0

    return fork(called)


def _leave(code: int) -> NoReturn:
    """End Python in order, with all that C libraries do at exit, but not through the frames of the parent."""
    ctypes.pythonapi.Py_Exit(code)
    raise AssertionError


def extraction(data: Path, cache: Path) -> list[str]:
    """Return the command for what `small_spec` does."""
    options = ["--model", "builtin", "--weights", "none", "--device", "cpu", "--workers", "1", "--batch-size", "2"]
    return ["extract", str(data), "--cache", str(cache), *options]


def small_spec(data: Path, cache: Path, **changes: Any) -> ExtractSpec:
    """One tap, one worker."""
    return tiny_spec(data, cache, **{"taps": ("penultimate",), "workers": 1, "batch_size": 2, **changes})


def warm(shard_rows: int, *, decode_here: bool = True) -> None:
    """Let this process and its forks extract without delay, in shards of so many rows."""
    build = run.build_extractor
    built = functools.cache(lambda backbone, taps: build(tiny_spec("", Path(), backbone=backbone, taps=taps)))
    job.SHARD_ROWS = shard_rows
    run.build_extractor = lambda spec: built(spec.backbone, spec.taps)
    forward.versions = functools.cache(forward.versions)
    if decode_here:
        loader.Decoder = InProcess  # type: ignore[assignment] what decodes is not at stake, and costs a start


def settled(folder: Path) -> Path:
    """Wait until the files of a folder are old enough to be remembered by their times, and return it.

    So every run makes the same calls, and leaves the same files.
    """
    time.sleep(1.5 * FINE_NS / 1e9)
    return folder


def without_lock() -> None:
    """Let this process extract where others do."""
    run.held = lambda *_, **__: nullcontext()


def rows_at(index: Path) -> dict[str, np.ndarray]:
    """Every row of a feature set by its id."""
    with FeatureSet(index).check() as features:
        return rows_of(features)


def same_rows(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    """Tell whether these are the rows, as `tests.tiny.assert_same_rows` does."""
    try:
        assert_same_rows(got, expected)
    except AssertionError:
        return False
    return True


def shards_below(cache: Path) -> list[Path]:
    """List the shards that have their names."""
    return sorted(cache.glob("*/*/shards/*.h5"))


def temporaries_below(cache: Path) -> int:
    """Count what killed writers left."""
    return sum(1 for _ in cache.rglob(".tmp-*"))


class Watch:
    """What has been committed to a cache, and whether all of it stays and is whole."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.seen = cache, dict[Path, tuple[int, int]]()
        self.lost, self.bad = 0, 0

    def look(self) -> None:
        """Look at every byte of the new shards, and see that the old ones are untouched."""
        now = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in shards_below(self.cache)}
        self.lost += sum(now.get(path) != was for path, was in self.seen.items())
        self.bad += sum(damage(path, "shard") is not None for path in now.keys() - self.seen.keys())
        self.seen = now


def flipped(data: bytes, chance: np.random.Generator) -> bytes:
    """Change one bit somewhere."""
    other = bytearray(data)
    other[chance.integers(len(data))] ^= 1 << int(chance.integers(8))
    return bytes(other)


def mutated(data: bytes, chance: np.random.Generator, most: int = 8) -> bytes:
    """Change one to `most` bytes somewhere."""
    other = bytearray(data)
    for at in chance.integers(len(data), size=int(chance.integers(1, most + 1))):
        other[at] ^= int(chance.integers(1, 256))
    return bytes(other)


@contextlib.contextmanager
def holding(path: Path, data: bytes) -> Iterator[None]:
    """Put other bytes into a file while the block runs, in place, as a disk does it."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def most_megabytes() -> float:
    """Return the most memory that this process ever took."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def small_bundle(data: Path, work: Path) -> Path:
    """Extract, fit, and return the bundle's folder."""
    done = run.extract(small_spec(data, work / "cache"))
    fit(FitSpec(done["features"], cache=work / "cache", out=work / "run", cv=2, jobs=1, strategy="linear"))
    return work / "run" / "bundle"


def clean_rows(data: Path, work: Path, **changes: Any) -> dict[str, np.ndarray]:
    """Return the rows that an extraction makes to which nothing happens."""
    return rows_of(features_of(run.extract(small_spec(data, work / "clean", **changes))))
