"""The driver of `--engine ray` with a thousand actors that answer at once: its own time and memory for each shard.

All of the driver is what runs in earnest, its pool of actors included; what is played is Ray, and so the time that Ray
itself takes is not in the figures. One answer comes at a time, which is the dearest way that they can come.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, overload

from benchmarks.extract.harness import Figures, Goal, Numbers, timed
from extract.engines.actor import Place
from extract.engines.pool import Pool
from extract.engines.ray import Driver
from extract.engines.worker import Order
from extract.progress import Silent
from extract.record import Record
from extract.shard import Receipt, Stages
from extract.spec import EngineSpec, ExtractSpec

ACTORS = 1_000
SIZES = 10_000, 100_000, 1_000_000
NEEDED_PER_S, TIMES = 54, 10
"""Shards a second of a billion images on a thousand GPUs (docs/scaling.md), and how many times that is the goal."""

MOST_BYTES = 2 << 30


class Played:
    """What the pool asks of Ray: an actor is there at once, and what it is asked for is done when somebody looks."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def remote(self, _: type) -> "Played":
        return self

    def options(self, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(remote=Handle)

    def wait(self, refs: Sequence[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return list(islice(refs, 1)), []

    def get(self, ref: "Answer") -> dict[str, Any]:
        return ref.said()

    def kill(self, _: "Handle") -> None:
        pass


class Answer:
    """What an actor will say: that it is there, or the receipt of a shard."""

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self._records = records

    def said(self) -> dict[str, Any]:
        if not self._records:
            return {"notes": []}
        receipt = Receipt(f"{int(self._records[0].id):032x}.h5", 4096, 0, Stages(), (time.time(), time.time()), "eager")
        return {"receipts": [json.loads(json.dumps(asdict(receipt)))]}


class Handle:
    """An actor."""

    def __init__(self) -> None:
        self.start = SimpleNamespace(remote=lambda *_: Answer())
        self.compute = SimpleNamespace(remote=Answer)


class Numbered(Sequence[Sequence[Record]]):
    """Shards of one record each, made when they are asked for: their records are not the driver's."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, at: int) -> Sequence[Record]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Sequence[Record]]: ...
    def __getitem__(self, at: int | slice) -> Any:
        return [Record(str(at), f"/data/{at}.jpg")]


def driver(quick: bool) -> Figures:
    """Drive ever more shards, each number of them in a process of its own."""
    sizes = SIZES[:2] if quick else SIZES
    rows = [timed([sys.executable, "-m", "benchmarks.engines.driver", str(n)]) for n in sizes]
    last = rows[-1]
    goals = [
        Goal(
            f"{last['shards']:,} shards, {ACTORS:,} actors: >= {TIMES * NEEDED_PER_S} for a second of a core",
            f"{last['shards_a_cpu_s']:,}",
            last["shards_a_cpu_s"] >= TIMES * NEEDED_PER_S,
        ),
        Goal(
            f"{last['shards']:,} shards: < {MOST_BYTES >> 30} GiB, all receipts kept",
            f"{last['mib']:,} MiB",
            last["mib"] << 20 < MOST_BYTES,
        ),
    ]
    note = f"{ACTORS:,} actors, one answer at a time, Ray played; MiB is what the process grew by."
    shown = ("shards", "seconds", "cpu_s", "shards_a_cpu_s", "us_a_shard", "mib", "bytes_a_shard")
    return Figures([{name.replace("_", " "): row[name] for name in shown} for row in rows], note, goals)


def simulated(n: int) -> Numbers:
    """Drive n shards to their end, keep the receipts as an extraction does, and say what it took."""
    spec = ExtractSpec("", engine=EngineSpec("ray", address="played"))
    order = Order("cpu", "{}", "", n, 1, 1, 1, None, "none")
    before, began, busy = _bytes(), time.perf_counter(), time.process_time()
    with Pool(Played(), ACTORS, (order, Place(1.0, ())), gpus=0.0) as pool:
        receipts = list(Driver(Numbered(n), pool, spec, Silent()).receipts())
    seconds, cpu_s, grown = time.perf_counter() - began, time.process_time() - busy, _bytes() - before
    return {
        "shards": len({receipt.name for receipt in receipts}),
        "seconds": round(seconds, 1),
        "cpu_s": round(cpu_s, 1),
        "shards_a_cpu_s": round(n / cpu_s),
        "us_a_shard": round(1e6 * cpu_s / n),
        "mib": grown >> 20,
        "bytes_a_shard": grown // n,
    }


def _bytes() -> int:
    """Return the memory that this process has now. (Its peak would be that of who started it, where that had more.)"""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    print(json.dumps(simulated(int(sys.argv[1]))))
