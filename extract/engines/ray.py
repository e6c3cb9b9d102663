"""The engine of many machines: actors of Ray, each of which is given one shard after another.

This process keeps the list of what is to do, and nothing else. Ray is to start actors, and neither to restart one nor
to repeat a call: while a machine is lost and Ray does not know it yet, any number of repetitions would be used up. A
shard whose actor died waits again, and another actor is asked for.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from extract.engines.actor import Place
from extract.engines.pool import Pool, Said, Worker, room
from extract.engines.session import session
from extract.engines.todo import Todo
from extract.engines.way import in_reach, way
from extract.engines.worker import Order, error_from, receipt_from
from extract.errors import EngineError, OptionError, ShardsFailed
from extract.forward import Extractor
from extract.progress import Progress
from extract.record import Record
from extract.shard import Receipt
from extract.spec import ExtractSpec
from extract.store.arrivals import Arrivals, AtOnce

Shards = Sequence[Sequence[Record]]

TICK_S = 0.5
"""How long nobody looks at what takes too long."""

SOON_S = 0.05
"""The same, while shards are on their way, which nothing tells of."""

GRACE_S = 1.5
"""How long actors that are to stop may take to compute the batches in their lanes and to write what is done."""

STARTS, LOSS_S, PAUSE_S = 3, 30.0, 1.0
"""So many actors that fail to start, one after the other, and over so long, are a fault of what they are to start with.
Ray takes 10 to 15 s to see that a machine is lost, and starts fail at once meanwhile: there is a pause between them."""

WAIT_S, NOTE_S = 600.0, 30.0
"""How long to wait for a first actor, as a cluster may have to start machines for it; after how long that is said."""


def run(
    shards: Shards, extractor: Extractor, folder: Path, spec: ExtractSpec, progress: Progress
) -> Generator[Receipt, None, None]:
    """Compute the rows of all records with actors in a session of Ray, and yield a receipt for each shard.

    The actors read the weights beside `folder`, and write there, or all of it goes by a relay. Raises ShardsFailed in
    the end where some shards failed again and again, EngineError where no actor can be had, and at once what ends every
    engine: a full disk, a relay that cannot be used, weights or a machine that are not what they should be. The shards
    that are on disk are kept.
    """
    if not shards:
        return
    if spec.profile:
        raise OptionError("no trace is written of what other processes do in Ray", remedy="Leave --profile out")
    with way(extractor, folder, spec) as (seen, arrivals), session(spec.engine) as ray:
        gpus = _gpus(extractor, spec)
        size = min(len(shards), spec.engine.actors or _room(ray, spec, gpus))
        place = Place(spec.engine.cpus, (*seen, *in_reach(shards)), spec.engine.relay)
        order = _order(shards, extractor, folder, spec, size, gpus)
        with Pool(ray, size, (order, place), gpus=gpus) as pool:
            yield from Driver(shards, pool, spec, progress, arrivals).receipts()


class Driver:
    """Gives the shards to the actors of a pool until each is done and has arrived, or has failed too often."""

    def __init__(
        self,
        shards: Shards,
        pool: Pool,
        spec: ExtractSpec,
        progress: Progress,
        arrivals: Arrivals | AtOnce | None = None,
    ) -> None:
        self._shards, self._pool, self._engine, self._progress = shards, pool, spec.engine, progress
        self._arrivals = arrivals or AtOnce()
        self._todo = Todo(len(shards), spec.engine.retries)
        self._notes: set[str] = set()
        self._heard = time.monotonic()
        self._bad_starts, self._bad_since, self._fill_at = 0, 0.0, 0.0

    def receipts(self) -> Iterator[Receipt]:
        """Yield receipts until all is done; at Ctrl-C those of what is done, and KeyboardInterrupt follows."""
        stopped = False
        try:
            while self._todo.left or self._arrivals.left:
                yield from self._step()
        except KeyboardInterrupt:
            stopped = True
            yield from self._stop()
        if stopped:
            raise KeyboardInterrupt
        if self._todo.failed:
            raise self._failed()

    def _step(self) -> Iterator[Receipt]:
        if time.monotonic() >= self._fill_at:
            self._pool.fill(self._todo.left)
        while self._pool.free and (number := self._todo.take()) is not None:
            self._pool.give(number, [_brief(record) for record in self._shards[number]])
        for worker, said in self._pool.heard(self._tick_s):
            self._heard = time.monotonic()
            self._take(worker, said)
            yield from self._arrived()
        yield from self._arrived()
        for worker in self._pool.late(self._engine.shard_timeout_s):
            self._fail(worker, f"it took longer than {self._engine.shard_timeout_s:g} s")
        if self._pool.starting:
            self._wait()

    @property
    def _tick_s(self) -> float:
        return SOON_S if self._arrivals.left else TICK_S

    def _take(self, worker: Worker, said: Said | str) -> None:
        """Carry on from what an actor said, or from why it said nothing."""
        if isinstance(said, str):
            self._fail(worker, said)
        elif "error" in said:
            raise error_from(said["error"])
        elif worker.number is None:
            self._started(worker, said["notes"])
        else:
            self._done(worker, worker.number, said["receipts"])

    def _started(self, worker: Worker, notes: Sequence[str]) -> None:
        self._bad_starts = 0
        self._pool.free.append(worker)
        for note in notes:
            self._note(note)

    def _done(self, worker: Worker, number: int, receipts: Sequence[Said]) -> None:
        worker.number = None
        self._pool.free.append(worker)
        if self._todo.done(number):
            self._pool.drop_all_at(number)
        self._expect(number, receipts)

    def _expect(self, number: int, receipts: Sequence[Said]) -> None:
        self._arrivals.expect((number, receipts), [receipt["name"] for receipt in receipts])

    def _arrived(self) -> Iterator[Receipt]:
        """Yield the receipts of what has come into the cache; a shard that came damaged waits again."""
        for (number, receipts), refused in self._arrivals.here():
            if refused:
                self._note(f"a shard came damaged by the relay, and is computed again ({refused})")
                self._todo.again(number, refused)
                continue
            for receipt in map(receipt_from, receipts):
                yield receipt  # first, so that where Ctrl-C comes it is known
                self._progress.advance(receipt.rows, receipt.bad)

    def _fail(self, worker: Worker, reason: str) -> None:
        """Do without an actor; its shard waits again, or is given up."""
        self._pool.drop(worker)
        if worker.number is not None:
            self._todo.fail(worker.number, reason)
            return
        if not self._bad_starts:
            self._bad_since = time.monotonic()
        self._bad_starts += 1
        if self._bad_starts >= STARTS and time.monotonic() - self._bad_since >= LOSS_S:
            remedy = "Check that this package and the cache are on every machine"
            raise EngineError(f"no actor can be started ({reason})", where=self._engine.address or "", remedy=remedy)
        self._fill_at = time.monotonic() + PAUSE_S

    def _wait(self) -> None:
        """Wait for a first actor, or for one after all were lost, but not for ever."""
        waited_s = time.monotonic() - self._heard
        wanted = f"an actor of {self._engine.cpus:g} CPUs and {self._pool.gpus:g} GPUs"
        if waited_s > WAIT_S:
            remedy = "Take less for an actor, as no machine may have that: --cpus-per-actor, --gpus-per-actor"
            raise EngineError(f"{wanted} has not started in {waited_s:.0f} s", remedy=remedy)
        if waited_s > NOTE_S:
            self._note(f"waiting for {wanted} to start; it may be that no machine has room for it")

    def _note(self, text: str) -> None:
        """Say something once, as most actors have the same to say."""
        if text not in self._notes:
            self._notes.add(text)
            self._progress.note(text)

    def _stop(self) -> Iterator[Receipt]:
        """Have all actors write what is done, and yield those receipts."""
        deadline = time.monotonic() + GRACE_S
        self._pool.stop()
        while (self._pool.busy or self._arrivals.left) and (left_s := deadline - time.monotonic()) > 0:
            for worker, said in self._pool.heard(min(left_s, self._tick_s)):
                if worker.number is not None and not isinstance(said, str):
                    self._expect(worker.number, said.get("receipts", ()))
            yield from self._arrived()

    def _failed(self) -> ShardsFailed:
        failed = sorted(self._todo.failed)
        first, reason = failed[0]
        said = f"{len(failed):,} of {len(self._shards):,} shards failed each time they were tried, all others are done"
        where = f"the shard that begins with {self._shards[first][0].id}"
        remedy = f"Run the same command again: it goes on from the rows that are written. The first failed so: {reason}"
        return ShardsFailed(said, where=where, remedy=remedy, failed=failed)


def _gpus(extractor: Extractor, spec: ExtractSpec) -> float:
    """Return how many GPUs an actor has: one where this machine would use one, if nobody said."""
    if spec.engine.gpus is not None:
        return spec.engine.gpus
    return 1.0 if extractor.device.type == "cuda" else 0.0


def _room(ray: Any, spec: ExtractSpec, gpus: float) -> int:
    """Return how many actors there is room for; a cluster may grow, and this machine does not."""
    if found := room(ray, spec.engine, gpus):
        return found
    if spec.engine.address:
        return 1
    said = f"this machine has no room for an actor of {spec.engine.cpus:g} CPUs and {gpus:g} GPUs"
    raise EngineError(said, remedy="Take less for an actor: --cpus-per-actor, --gpus-per-actor")


def _order(shards: Shards, extractor: Extractor, folder: Path, spec: ExtractSpec, size: int, gpus: float) -> Order:
    return Order(
        device="cuda:0" if gpus else "cpu",  # of those that Ray has it see
        recipe=extractor.recipe.to_json(indent=None),
        folder=str(folder.absolute()),
        n_images=-(-sum(map(len, shards)) // size),
        most=max(map(len, shards)),
        share=1,
        workers=max(1, int(spec.engine.cpus)),
        batch_size=spec.batch_size,
        compile=spec.compile,
    )


def _brief(record: Record) -> Record:
    """Leave out what computes nothing. A path is as sources name it: from the root, or a location of torchvision."""
    return Record(record.id, record.path, span=record.span)
