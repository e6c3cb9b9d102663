"""What the engine makes of what a pool of actors tells it, from a pool that plays a part."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from extract.engines import pool, ray
from extract.engines.pool import Said, Worker
from extract.engines.ray import Driver
from extract.errors import EngineError, OffshelfError, ShardsFailed, StoreError
from extract.progress import Silent
from extract.record import Record
from extract.shard import Receipt
from extract.spec import EngineSpec, ExtractSpec
from extract.store.arrivals import AtOnce
from tests.tiny import tiny_spec

Play = Callable[[Worker], Said | str | None]


class Played:
    """A pool of one actor that says at once what a play has it say: None for nothing, as it is busy."""

    gpus = 0.0

    def __init__(self, play: Play) -> None:
        self.free: list[Worker] = []
        self.dropped: list[Worker] = []
        self._play = play
        self._due: list[Worker] = []
        self.stopped = False

    @property
    def starting(self) -> bool:
        return not self.free and all(worker.number is None for worker in self._due)

    @property
    def busy(self) -> bool:
        return any(worker.number is not None for worker in self._due)

    def fill(self, most: int) -> None:
        if not self.free and not self._due:
            self._due.append(Worker(None, 0.0))

    def give(self, number: int, records: Sequence[Record]) -> None:
        worker = self.free.pop()
        worker.number = number
        self._due.append(worker)

    def heard(self, timeout_s: float) -> Iterator[tuple[Worker, Said | str]]:
        for worker in list(self._due):
            if (said := self._play(worker)) is not None:
                self._due.remove(worker)
                yield worker, said

    def late(self, timeout_s: float | None) -> list[Worker]:
        return [worker for worker in self._due if worker.number is not None] if timeout_s else []

    def drop_all_at(self, number: int) -> None:
        raise AssertionError("nobody else has it")

    def drop(self, worker: Worker) -> None:
        self.dropped.append(worker)
        if worker in self._due:
            self._due.remove(worker)

    def stop(self) -> None:
        self.stopped = True


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.rows: list[tuple[int, int]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, steps: int, bad: int = 0) -> None:
        self.rows.append((steps, bad))


SHARDS = [[Record(f"{n}/{i}", f"/{n}/{i}") for i in range(2)] for n in range(3)]
STARTED: Said = {"notes": ["eager: it is a small job"]}


def receipt(number: int) -> dict[str, Any]:
    return {"name": f"{number}.h5", "rows": 2, "bad": 1, "stages": {"seconds": {}}, "span": [0, 1], "runner": "eager"}


def works(worker: Worker) -> Said:
    return STARTED if worker.number is None else {"receipts": [receipt(worker.number)]}


def drive(
    play: Play, progress: Silent | None = None, *, way: AtOnce | None = None, **engine: Any
) -> tuple[Played, Iterator[Receipt]]:
    spec: ExtractSpec = tiny_spec("", Path("cache"), engine=EngineSpec("ray", **engine))
    played = Played(play)
    return played, Driver(SHARDS, played, spec, progress or Silent(), way).receipts()


def test_every_shard_has_its_receipt_and_what_all_say_is_said_once():
    watcher = Notes()

    def mortal(worker: Worker) -> Said | str:
        return works(worker) if worker.number != 1 or watcher.rows[1:] else "it died"

    played, receipts = drive(mortal, watcher)
    assert [each.name for each in receipts] == ["0.h5", "2.h5", "1.h5"]
    assert watcher.rows == [(2, 1)] * 3
    assert watcher.notes == STARTED["notes"]
    assert [worker.number for worker in played.dropped] == [1]


class Way(AtOnce):
    """Shards come late, and those that a play names come damaged so many times."""

    def __init__(self, damaged: dict[int, int]) -> None:
        super().__init__()
        self.damaged, self.looks = damaged, 0

    def here(self, timeout_s: float = 0.0) -> Iterator[tuple[Any, str]]:
        self.looks += 1
        if self.looks % 3:
            return
        for what, _ in super().here():
            number = what[0]
            self.damaged[number] = left = self.damaged.get(number, 0) - 1
            yield what, "it came damaged" if left >= 0 else ""


def test_a_shard_that_comes_damaged_is_computed_again_and_what_is_on_its_way_is_waited_for(monkeypatch):
    monkeypatch.setattr(ray, "SOON_S", 0.0)
    watcher = Notes()
    played, receipts = drive(works, watcher, way=Way({1: 2}))
    assert sorted(each.name for each in receipts) == ["0.h5", "1.h5", "2.h5"]
    assert watcher.rows == [(2, 1)] * 3
    assert watcher.notes[1:] == ["a shard came damaged by the relay, and is computed again (it came damaged)"]
    assert played.dropped == [], "the actor did what it should"


def test_a_shard_that_always_comes_damaged_is_given_up(monkeypatch):
    kept = []
    _, receipts = drive(works, way=Way({1: 99}))
    with pytest.raises(ShardsFailed, match=r"begins with 1/0: 1 of 3 shards .*it came damaged") as caught:
        kept.extend(each.name for each in receipts)
    assert sorted(kept) == ["0.h5", "2.h5"]
    assert caught.value.failed == ((1, "it came damaged"),)


def test_at_ctrl_c_what_is_on_its_way_still_comes(monkeypatch):
    monkeypatch.setattr(ray, "GRACE_S", 60)
    watcher, pressed = Notes(), []

    def stops(worker: Worker) -> Said:
        if worker.number == 1 and not pressed:
            pressed.append(True)
            raise KeyboardInterrupt
        return works(worker)

    kept = []
    _, receipts = drive(stops, watcher, way=Way({}))
    with pytest.raises(KeyboardInterrupt):
        kept.extend(each.name for each in receipts)
    assert kept == ["0.h5", "1.h5"]
    assert watcher.rows == [(2, 1)] * 2


def test_a_shard_is_tried_three_times_and_the_others_are_done():
    played, receipts = drive(lambda worker: "it died" if worker.number == 1 else works(worker))
    kept = []
    with pytest.raises(ShardsFailed, match=r"begins with 1/0: 1 of 3 shards .*it died") as caught:
        kept.extend(each.name for each in receipts)
    assert kept == ["0.h5", "2.h5"]
    assert caught.value.failed == ((1, "it died"),)
    assert [worker.number for worker in played.dropped] == [1, 1, 1]


def test_an_error_of_ours_ends_the_run_as_it_would_have_here():
    error = StoreError("no room", where="there", remedy="Make some").as_dict()
    _, receipts = drive(lambda worker: {"error": error} if worker.number == 1 else works(worker))
    assert next(receipts).name == "0.h5"
    with pytest.raises(StoreError, match=r"there: no room\. Make some"):
        next(receipts)


def test_one_of_a_kind_that_is_not_known_is_ours_all_the_same():
    error = {"type": "OfTomorrow", "what": "odd", "where": "here", "remedy": "Wait"}
    with pytest.raises(OffshelfError, match=r"here: odd\. Wait"):
        list(drive(lambda _: {"error": error})[1])


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(ray, "LOSS_S", 0.0)
    monkeypatch.setattr(ray, "PAUSE_S", 0.0)


def test_actors_that_never_start_are_told_with_the_cause():
    played, receipts = drive(lambda _: "ModuleNotFoundError: no extract", address="10.0.0.1:6379")
    with pytest.raises(EngineError, match=r"10\.0\.0\.1:6379: no actor can be started \(ModuleNotFoundError"):
        list(receipts)
    assert len(played.dropped) == ray.STARTS


def test_actors_that_do_not_start_now_and_then_are_replaced():
    bad = ["it died"] * (ray.STARTS - 1)
    starts = iter([*bad, STARTED, *bad, STARTED])

    def mortal(worker: Worker) -> Said | str:
        if worker.number is None:
            return next(starts)
        return "it died" if len(played.dropped) < ray.STARTS else works(worker)

    played, receipts = drive(mortal)
    assert sorted(each.name for each in receipts) == ["0.h5", "1.h5", "2.h5"]


def test_starts_that_fail_while_nobody_knows_of_a_lost_machine_are_no_fault(monkeypatch):
    monkeypatch.setattr(ray, "LOSS_S", 3600.0)
    starts = iter(["it died"] * 10 * ray.STARTS)
    _, receipts = drive(lambda worker: next(starts, STARTED) if worker.number is None else works(worker))
    assert sorted(each.name for each in receipts) == ["0.h5", "1.h5", "2.h5"]


def test_a_shard_that_takes_too_long_counts_as_failed():
    played, receipts = drive(lambda worker: None if worker.number == 0 else works(worker), shard_timeout_s=5, retries=2)
    with pytest.raises(ShardsFailed, match="it took longer than 5 s") as caught:
        list(receipts)
    assert caught.value.failed == ((0, "it took longer than 5 s"),)
    assert [worker.number for worker in played.dropped] == [0, 0]


def test_a_cluster_without_room_is_waited_for_and_not_for_ever(monkeypatch):
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr(ray, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    watcher = Notes()
    with pytest.raises(
        EngineError, match=r"an actor of 2 CPUs and 0 GPUs has not started in 6\d\d s\. .*--cpus-per-actor"
    ):
        list(drive(lambda _: None, watcher, cpus=2)[1])
    assert watcher.notes == [
        "waiting for an actor of 2 CPUs and 0 GPUs to start; it may be that no machine has room for it"
    ]


def test_at_ctrl_c_what_was_said_in_time_counts():
    def play(worker: Worker) -> Said:
        if worker.number == 1 and not played.stopped:
            raise KeyboardInterrupt
        return works(worker)

    played, receipts = drive(play)
    kept = []
    with pytest.raises(KeyboardInterrupt):
        kept.extend(each.name for each in receipts)
    assert kept == ["0.h5", "1.h5"]


def test_at_ctrl_c_who_says_nothing_is_not_waited_for(monkeypatch):
    def play(worker: Worker) -> Said | None:
        if worker.number == 1 and not played.stopped:
            raise KeyboardInterrupt
        return None if worker.number == 1 else works(worker)

    monkeypatch.setattr(ray, "GRACE_S", 0.01)
    played, receipts = drive(play)
    with pytest.raises(KeyboardInterrupt):
        list(receipts)


@pytest.mark.parametrize(
    ("device", "asked", "gpus", "there"),
    [("cpu", None, 0.0, "cpu"), ("cuda", None, 1.0, "cuda:0"), ("cuda", 0.5, 0.5, "cuda:0"), ("cpu", 2, 2, "cuda:0")],
)
def test_an_actor_has_the_gpus_that_were_asked_for_or_one_where_this_machine_takes_one(device, asked, gpus, there):
    spec = tiny_spec("", Path("cache"), batch_size=3, workers=9, engine=EngineSpec("ray", cpus=2.5, gpus=asked))
    recipe = SimpleNamespace(to_json=lambda indent: "{}")
    extractor: Any = SimpleNamespace(device=SimpleNamespace(type=device), recipe=recipe)
    assert ray._gpus(extractor, spec) == gpus
    order = ray._order(SHARDS, extractor, Path("cache/shards"), spec, 4, gpus)
    assert (order.device, order.workers, order.batch_size) == (there, 2, 3)
    assert (order.n_images, order.most, order.folder) == (2, 2, str(Path("cache/shards").absolute()))


@pytest.mark.parametrize(
    ("cpus", "gpus", "actors"), [(1, 0.0, 11), (4, 0.0, 2), (0.5, 0.0, 22), (1, 1.0, 2), (1, 0.5, 4), (9, 0.0, 0)]
)
def test_there_is_room_for_as_many_actors_as_fit_on_each_machine(cpus, gpus, actors):
    machines = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": True, "Resources": {}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    assert pool.room(SimpleNamespace(nodes=lambda: machines), EngineSpec("ray", cpus=cpus), gpus) == actors


class DiedError(Exception):
    cause = None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (type("Task", (DiedError,), {"cause": ValueError("a bug\nat large")})("Traceback ..."), "ValueError: a bug"),
        (DiedError("The actor died unexpectedly.\n\tpid: 7\nThe node has died. It was old."), "The node has died"),
        (DiedError("The actor is unavailable: away. Try again."), "The actor is unavailable: away"),
        (DiedError(""), "DiedError"),
    ],
)
def test_of_what_ray_says_a_sentence_is_told(error, said):
    assert pool._reason(error) == said
