"""A pool of actors of Ray: some start, some are free, each other has one shard; who fails is dropped and replaced."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from extract.engines.actor import Actor, Place
from extract.engines.worker import Order
from extract.record import Record
from extract.spec import EngineSpec

Said = dict[str, Any]

STOP_AND_COMPUTE = 2
"""Calls that an actor takes at the same time: it is told to stop while it computes."""


@dataclass(eq=False, slots=True)
class Worker:
    """An actor: it starts, or has the shard of that `number` since then, or is free."""

    actor: Any
    since: float
    number: int | None = None


def room(ray: Any, engine: EngineSpec, gpus: float) -> int:
    """Return how many actors there is room for on the machines that are there now."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = {"CPU": engine.cpus, "GPU": gpus}
    return sum(min(int(has.get(name, 0) / n + 1e-6) for name, n in needs.items() if n) for has in found)


class Pool:
    """Up to `size` actors, each started with this order at this place. As a context manager it leaves none behind."""

    def __init__(self, ray: Any, size: int, given: tuple[Order, Place], *, gpus: float) -> None:
        self.size, self.free = size, list[Worker]()
        self._ray, self._given, self.gpus = ray, given, gpus
        self._due: dict[Any, Worker] = {}
        resources = {"num_cpus": given[1].cpus, "num_gpus": gpus}
        never = {"max_restarts": 0, "max_task_retries": 0}
        self._kind = ray.remote(Actor).options(max_concurrency=STOP_AND_COMPUTE, **resources, **never)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self.free, *self._due.values()]:
            self.drop(worker)

    @property
    def starting(self) -> bool:
        """Whether no actor is there yet, or any more."""
        return not self.free and all(worker.number is None for worker in self._due.values())

    @property
    def busy(self) -> bool:
        """Whether an actor has a shard."""
        return any(worker.number is not None for worker in self._due.values())

    def fill(self, most: int) -> None:
        """Ask for actors until there are `size`, or `most` where that is less."""
        while len(self.free) + len(self._due) < min(self.size, most):
            worker = Worker(self._kind.remote(), time.monotonic())
            self._due[worker.actor.start.remote(*self._given)] = worker

    def give(self, number: int, records: Sequence[Record]) -> None:
        """Give the shard of that number to an actor that is free."""
        worker = self.free.pop()
        worker.number, worker.since = number, time.monotonic()
        self._due[worker.actor.compute.remote(records)] = worker

    def heard(self, timeout_s: float) -> Iterator[tuple[Worker, Said | str]]:
        """Yield what actors said, or why they did not; within so many seconds there may be nothing."""
        if not self._due:
            time.sleep(timeout_s)  # Ray waits for nothing, but not for nobody
            return
        if not self._ray.wait(list(self._due), timeout=timeout_s)[0]:
            return
        for ref in self._ray.wait(list(self._due), num_returns=len(self._due), timeout=0)[0]:
            if (worker := self._due.pop(ref, None)) is None:
                continue  # it was dropped for what another one said
            try:
                said = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                said = _reason(error)
            yield worker, said

    def late(self, timeout_s: float | None) -> list[Worker]:
        """Return the actors that have had a shard for longer than that."""
        if timeout_s is None:
            return []
        now = time.monotonic()
        return [each for each in self._due.values() if each.number is not None and now - each.since > timeout_s]

    def drop_all_at(self, number: int) -> None:
        """End the actors that have the shard of that number."""
        for worker in [each for each in self._due.values() if each.number == number]:
            self.drop(worker)

    def drop(self, worker: Worker) -> None:
        """End an actor; what it still says is not heard."""
        self._due = {ref: each for ref, each in self._due.items() if each is not worker}
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker.actor)

    def stop(self) -> None:
        """Have all actors that compute end with the rows that are done, and drop all others."""
        for worker in [*self.free, *self._due.values()]:
            if worker.number is None:
                self.drop(worker)
            else:
                worker.actor.stop.remote()
        self.free.clear()


def _reason(error: Exception) -> str:
    """Say in a sentence what an actor raised, or how it ended: Ray adds tables and advice to that."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return f"{type(cause).__name__}: {cause}".splitlines()[0]
    lines = [line for line in str(error).splitlines() if line and not line.startswith("\t")] or [type(error).__name__]
    return lines[min(1, len(lines) - 1)].split(". ")[0].rstrip(".")
