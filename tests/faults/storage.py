"""Faults at every call that changes a cache: the process is killed before, inside or after it, or the call fails.

    python -m tests.faults.storage DATA SHARD_ROWS

reads one case per line of stdin and answers with one line of JSON each. A case is carried out in a fork of this warm
process; a second fork then looks at what is left, runs the extraction again and compares every row.
"""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

CALLS = ("mkdir", "rmdir", "open", "write", "pwrite", "ftruncate", "fsync", "close", "link", "replace", "unlink")
BY_DESCRIPTOR = ("write", "pwrite", "ftruncate", "fsync", "close")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a system answers that has no room: on the disk, for the user, in a file."""


class Fault:
    """What happens at the n-th call that changes something below a folder: a death, or an error."""

    def __init__(self, cache: Path, *, call: int = 0, kill: str = "", error: int = 0, lasting: bool = False) -> None:
        self.cache, self.call, self.kill, self.error, self.lasting = str(cache), call, kill, error, lasting
        self.count, self.ours = 0, set()
        self.names: list[str] = []
        self.real: dict[str, Callable[..., Any]] = {}

    def arm(self) -> None:
        """Stand between the program and the system."""
        for name in CALLS:
            self.real[name] = getattr(os, name)
            setattr(os, name, self._between(name, self.real[name]))

    def _between(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if not self._concerns(name, given):
                return self._done(name, given, real(*given, **named))
            self.count += 1
            self.names.append(name)
            if self.error and (self.count == self.call or (self.lasting and self.count > self.call)):
                return self._fail(name, given, real)
            if self.kill and self.count == self.call:
                self._die(name, given, named, real)
            return self._done(name, given, real(*given, **named))

        return call

    def _concerns(self, name: str, given: tuple[Any, ...]) -> bool:
        if name in BY_DESCRIPTOR:
            return given[0] in self.ours
        if name == "open" and not given[1] & os.O_CREAT:
            return False
        return os.path.abspath(os.fspath(given[0])).startswith(self.cache)

    def _done(self, name: str, given: tuple[Any, ...], result: Any) -> Any:
        if name == "open" and isinstance(given[0], str | Path) and str(given[0]).startswith(self.cache):
            self.ours.add(result)
        elif name == "close":
            self.ours.discard(given[0])
        return result

    def _fail(self, name: str, given: tuple[Any, ...], real: Callable[..., Any]) -> Any:
        if name == "close":
            real(*given)  # a failing close has closed
            self.ours.discard(given[0])
            if self.error in FULL:
                return None
        elif self.error in FULL and name in ("unlink", "rmdir"):
            return real(*given)  # takes no room
        raise OSError(self.error, os.strerror(self.error), str(given[0]))

    def _die(self, name: str, given: tuple[Any, ...], named: dict[str, Any], real: Callable[..., Any]) -> None:
        if self.kill == "inside" and name == "write":
            real(given[0], given[1][: len(given[1]) // 2])
        elif self.kill == "inside" and name == "fsync" and not os.path.isdir(f"/proc/self/fd/{given[0]}"):
            self.real["ftruncate"](given[0], os.fstat(given[0]).st_size // 2)
        elif self.kill == "after":
            real(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)


def kills(names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield every death that leaves another disk behind, for the calls of a run.

    To die after a call is to die before the next one, and a close changes nothing.
    """
    for call, name in enumerate(names, 1):
        if name != "close":
            yield {"call": call, "kill": "before"}
        if name in ("write", "fsync"):
            yield {"call": call, "kill": "inside"}
    yield {"call": len(names), "kill": "after"}


def errors(names: list[str], full: Iterable[int] = (errno.ENOSPC,)) -> Iterator[dict[str, Any]]:
    """Yield an I/O error at every call of a run; at those that take room, also those of `full` from there on."""
    for call, name in enumerate(names, 1):
        yield {"call": call, "error": errno.EIO}
        if name not in ("close", "unlink", "rmdir"):
            yield from ({"call": call, "error": error, "lasting": True} for error in full)


def run_cases(data: Path, shard_rows: int, cases: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Carry the cases out in two processes of their own: their answers, in the order of the cases."""
    cases = list(cases)
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(lambda half: _run_cases(data, shard_rows, half), (cases[::2], cases[1::2])))
    return [answer for pair in zip_longest(*halves) for answer in pair if answer is not None]


def _run_cases(data: Path, shard_rows: int, cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if not cases:
        return []
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    command = [sys.executable, "-m", "tests.faults.storage", str(data), str(shard_rows)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, input=lines, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr[-2000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


def forked(work: Callable[[], Any]) -> dict[str, Any]:
    """Do work in a fork: what it returned, or its error, or how it ended."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        code = 0
        try:
            answer = {"result": work()}
        except BaseException as error:
            answer, code = {"error": f"{type(error).__module__}.{type(error).__name__}: {error}"}, 1
        os.set_blocking(write, True)
        os.write(write, json.dumps(answer).encode())
        os._exit(code)
    os.close(write)
    with open(read) as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"code": code, **(json.loads(said) if said else {})}


def carry_out(spec: Any, case: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """Run an extraction with its fault, upon a copy of an older cache if any, and go on from what it left."""
    if base := case.get("base"):
        shutil.copytree(base, case["cache"], symlinks=True)
    fault = Fault(spec.cache, **case["fault"])

    def struck() -> dict[str, Any]:
        from extract.run import extract

        fault.arm()
        done = extract(spec)
        return {"calls": fault.count, "names": fault.names, "computed": done["computed"]}

    return {"first": forked(struck), "then": forked(lambda: look_and_resume(spec, expected))}


def look_and_resume(spec: Any, expected: dict[str, Any]) -> dict[str, Any]:
    """What a cache holds after a fault, and whether the next run goes on from there to the right rows."""
    from extract.run import extract
    from extract.store import FeatureSet
    from extract.store.shards import shards_in
    from extract.store.whole import damage
    from tests.tiny import assert_same_rows, rows_in, rows_of

    folders = [path for path in spec.cache.glob("*/*") if path.is_dir()]
    shards = [path for folder in folders for path in shards_in(folder / "shards")]
    unreadable = [path.name for path in shards if damage(path, "shard")]
    before = {path: path.stat() for path in shards}
    kept = sum(map(rows_in, shards))
    indexes = [folder / "features.h5" for folder in folders if (folder / "features.h5").exists()]
    seen = [sorted(rows_of(FeatureSet(path).check())) for path in indexes]
    temporaries = sum(1 for path in spec.cache.rglob(".tmp-*"))
    done = extract(spec)
    rows = rows_of(FeatureSet(Path(done["path"])))
    assert_same_rows(rows, expected)
    touched = [path.name for path, status in before.items() if not path.exists() or path.stat() != status]
    return {
        "unreadable": unreadable,
        "touched": touched,
        "kept": kept,
        "computed": done["computed"],
        "rows": done["rows"],
        "bad": done["bad"],
        "seen": [len(ids) for ids in seen],
        "temporaries": temporaries,
    }


class InProcess:
    """A decoder that decodes right here, one image at a time; it has no process to end."""

    def __init__(self, short_px: int | None = None, *, leave_jpeg: bool = False) -> None:
        assert not leave_jpeg
        self.short_px, self.record = short_px, None

    @property
    def full(self) -> bool:
        return self.record is not None

    def submit(self, record: Any) -> None:
        self.record = record

    def answer(self) -> Any:
        from extract import images
        from extract.decoding import NO_DIGEST, Decoded
        from extract.record import Failure
        from extract.sources import read_bytes

        data, self.record = read_bytes(self.record, images.MAX_BYTES), None
        if isinstance(data, Failure):
            return Decoded(NO_DIGEST, data)
        return Decoded(hashlib.sha256(data).digest(), images.decode(data, short_px=self.short_px))

    def start(self) -> None:
        pass

    kill = stop = close = start


def main() -> None:
    """Answer the cases on stdin."""
    import extract.job
    import extract.loader
    import extract.run
    from tests.tiny import features_of, rows_of, tiny_spec

    data, extract.job.SHARD_ROWS = Path(sys.argv[1]), int(sys.argv[2])
    extract.loader.Decoder = InProcess  # type: ignore[assignment] what decodes is not at stake here, and costs a start
    expected = None
    for line in sys.stdin:
        case = json.loads(line)
        spec = tiny_spec(data, Path(case["cache"]), taps=("penultimate",), workers=1)
        if expected is None:
            extractor = extract.run.build_extractor(spec)
            extract.run.build_extractor = lambda _, extractor=extractor: extractor  # once for all forks
            clean = replace(spec, cache=spec.cache.with_name(f"clean-{os.getpid()}"))
            expected = rows_of(features_of(extract.run.extract(clean)))
        print(json.dumps({**case, **carry_out(spec, case, expected)}), flush=True)


if __name__ == "__main__":
    main()
