import logging
import weakref

import pytest
import torch
from torch import Tensor

from extract.errors import RunnerError
from extract.runners.chunks import Chunked, Limit, out_of_memory
from tests.extract.runners.nets import in_lanes

ON_A_CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
FAILURES = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(ON_A_CPU), MemoryError()]


class Small:
    """A network that fails above a number of images; `seen` has the sizes of what it was given."""

    def __init__(self, room: int, failure: Exception = FAILURES[0]) -> None:
        self.room, self.failure = room, failure
        self.seen: list[int] = []

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        self.seen.append(len(pixels))
        if len(pixels) > self.room:
            raise self.failure
        return {"a": pixels.float().mean((1, 2, 3))[:, None], "b": pixels[:, 0].float()}


def batch(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, 4, 4), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda error: type(error).__name__)
def test_a_batch_that_is_too_large_is_run_in_parts_and_the_next_one_at_once(failure, caplog):
    small, plain = Small(3, failure), Small(99)
    lane = Chunked(lambda _: small, Limit(16))
    for n in (16, 9, 2):
        rows, expected = lane(batch(n)), plain(batch(n))
        assert all(torch.equal(rows[name], values) for name, values in expected.items())
    assert small.seen == [16, 8, 4, *[2] * 8, 2, 2, 2, 2, 1, 2]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert "out of memory with 16 images at once: going on with 8" in caplog.text


def test_a_small_batch_that_fails_halves_what_failed():
    small = Small(2)
    lane = Chunked(lambda _: small, Limit(100))
    lane(batch(4))
    assert small.seen == [4, 2, 2]


def test_one_image_that_does_not_fit_is_an_error_of_ours():
    with pytest.raises(RunnerError, match=r"does not suffice for one image.*--crop-size"):
        Chunked(lambda _: Small(0), Limit(4))(batch(4))


def test_another_error_comes_out_as_it_is():
    with pytest.raises(RuntimeError, match="upset"):
        Chunked(lambda _: Small(0, RuntimeError("upset")), Limit(4))(batch(4))


def test_what_another_lane_has_halved_is_not_halved_again():
    limit = Limit(8)
    limit.halve(8, FAILURES[0])
    limit.halve(4, FAILURES[0])
    limit.halve(8, FAILURES[0])
    assert limit.images == 2


def test_lanes_share_what_they_learn(caplog):
    limit, rows = Limit(8), {}

    class Runner:
        name = "small"

        def lane(self):
            return Chunked(lambda _: Small(4), limit)

    def work(i):
        return lambda lane: rows.update({i: lane(batch(8))})

    in_lanes(Runner(), [work(i) for i in range(6)])
    assert limit.images == 4
    assert len(caplog.records) == 1, "one warning for one halving"
    assert all(torch.equal(rows[i]["b"], batch(8)[:, 0].float()) for i in range(6))


def test_what_takes_one_size_only_is_built_anew_for_the_smaller_one():
    built = []

    def build(size: int) -> Small:
        built.append(size)
        return Small(2)

    lane = Chunked(build, Limit(8))
    lane(batch(8))
    lane(batch(8))
    assert built == [8, 4, 2]


def test_memory_that_lacks_while_building_counts_too():
    def build(size: int) -> Small:
        if size > 2:
            raise FAILURES[0]
        return Small(2)

    assert len(Chunked(build, Limit(8))(batch(8))["a"]) == 8


class Hungry(Small):
    """A network that notes how many of its intermediate results are alive as it begins."""

    def __init__(self, room: int) -> None:
        super().__init__(room)
        self.results = weakref.WeakSet()
        self.alive: list[int] = []

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        self.alive.append(len(self.results))
        result = torch.zeros(1)
        self.results.add(result)
        return super().__call__(pixels)


def test_nothing_of_a_failed_attempt_is_kept_while_the_next_one_runs():
    hungry = Hungry(2)
    Chunked(lambda _: hungry, Limit(4))(batch(4))
    assert hungry.alive == [0, 0, 0]


def test_the_allocator_of_a_cpu_says_what_is_looked_for():
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(caught.value)
