from types import SimpleNamespace

import pytest

from extract.engines import todo
from extract.engines.todo import Todo


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, which only moves where a test moves it."""
    now = [0.0]
    monkeypatch.setattr(todo, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_each_is_given_once_in_order():
    job = Todo(3, tries=3)
    assert [job.take() for _ in range(4)] == [0, 1, 2, None]
    assert job.left == 3
    assert [job.done(number) for number in range(3)] == [False] * 3, "nobody else has them"
    assert job.left == 0
    assert job.take() is None


def test_one_that_fails_waits_behind_the_others_until_it_has_failed_too_often():
    job, taken = Todo(2, tries=3), []
    while job.left:
        taken.append(number := job.take())
        job.fail(0, f"try {len(taken)}") if number == 0 else job.done(number)
    assert taken == [0, 1, 0, 0]
    assert job.failed == [(0, "try 4")]


def test_the_slowest_is_given_twice_where_it_takes_strangely_long(clock):
    job = Todo(3, tries=1)
    for _ in range(3):
        job.take()
        clock[0] += 10
    job.done(2)  # in 10 s; the others began 30 and 20 s ago
    clock[0] = 30.0
    assert job.take() is None
    clock[0] = 30.1
    assert job.take() == 0
    assert job.take() is None
    clock[0] = 40.1
    assert job.take() == 1
    assert job.take() is None, "nothing is done by three"
    assert job.done(0), "the other one is still at it"


def test_what_all_take_long_over_is_not_strange(clock):
    job = Todo(2, tries=1)
    assert [job.take(), job.take()] == [0, 1]
    clock[0] = 100.0
    assert job.take() is None, "none is done yet, so that nobody knows how long one takes"
    job.done(0)
    clock[0] = 300.0
    assert job.take() is None
    clock[0] = 300.1
    assert job.take() == 1


def with_two_at_one(clock) -> Todo:
    job = Todo(2, tries=2)
    job.take(), job.take()
    job.done(1)
    clock[0] = 31.0
    assert job.take() == 0
    return job


def test_of_two_that_have_the_same_one_may_fail(clock):
    job = with_two_at_one(clock)
    job.fail(0, "the first")
    assert job.left == 1
    assert job.take() == 0, "the one that is left takes long, too"
    job.done(0)
    assert (job.left, job.failed) == (0, [])


def test_what_is_done_and_then_lost_waits_again_and_is_given_up_in_the_end():
    job = Todo(2, tries=2)
    assert (job.take(), job.take()) == (0, 1)
    for number, reason in ((0, "it came damaged"), (0, "once more")):
        job.done(number)
        job.again(number, reason)
        assert job.take() == (0 if reason == "it came damaged" else None)
    job.done(1)
    assert (job.left, job.failed) == (0, [(0, "once more")])


def test_of_two_that_have_the_same_both_may_fail(clock):
    job = with_two_at_one(clock)
    job.fail(0, "the first")
    job.fail(0, "the second")
    assert (job.left, job.failed) == (0, [(0, "the second")])
