import signal
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.channel import Channel, Crew, Ended
from tests.interrupt import interrupted, soon


def waits(channel: Channel) -> bool:
    """Whether a thread waits for a change."""
    return bool(channel._bells)


def test_items_come_out_in_the_order_in_which_they_went_in():
    channel = Channel(3)
    for item in "abc":
        channel.put(item)
    assert [channel.get(), channel.get(), channel.get()] == ["a", "b", "c"]


def test_nobody_waits_who_does_not_want_to():
    channel = Channel(1)
    assert channel.get(wait=False) is None
    channel.put("a")
    assert channel.get(wait=False) == "a"
    assert channel.get(wait=False) is None


def test_an_item_waits_for_room():
    with Crew() as crew:
        channel, taken = crew.channel(2), []
        crew.start("put", lambda: [channel.put(i) for i in range(4)] and channel.finish())
        assert soon(lambda: waits(channel))
        assert list(channel._items) == [0, 1]
        taken.append(channel.get())
        assert soon(lambda: list(channel._items) == [1, 2])
        assert taken + list(channel) == [0, 1, 2, 3]


def test_one_who_waits_gets_what_comes():
    with Crew() as crew:
        channel, got = crew.channel(1), crew.channel(1)
        crew.start("get", lambda: got.put(channel.get()))
        assert soon(lambda: waits(channel))
        channel.put("a")
        assert got.get() == "a"


@settings(max_examples=25)
@given(room=st.integers(1, 5), givers=st.integers(1, 4), takers=st.integers(1, 4))
def test_every_item_arrives_once_and_those_of_one_giver_in_order(room, givers, takers):
    with Crew() as crew:
        channel = crew.channel(room)
        taken: list[list[tuple[int, int]]] = [[] for _ in range(takers)]
        for giver in range(givers):
            crew.start("give", lambda giver=giver: [channel.put((giver, i)) for i in range(20)] and None)
        for mine in taken:
            crew.start("take", lambda mine=mine: mine.extend(channel))
        assert soon(lambda: sum(map(len, taken)) == 20 * givers)
        channel.finish()
        crew.join()
        crew.check()
    assert sorted(item for mine in taken for item in mine) == [(g, i) for g in range(givers) for i in range(20)]
    for mine in taken:
        for giver in range(givers):
            numbers = [i for g, i in mine if g == giver]
            assert numbers == sorted(numbers)


def test_what_is_under_way_still_passes_after_the_finish():
    channel = Channel(2)
    channel.put("a")
    channel.finish()
    assert not channel.exhausted
    assert list(channel) == ["a"]
    assert channel.exhausted
    with pytest.raises(Ended):
        channel.get()
    with pytest.raises(Ended):
        channel.get(wait=False)


def test_the_end_drops_what_is_under_way():
    channel = Channel(2)
    channel.put("a")
    channel.end()
    assert list(channel) == []
    assert not channel.exhausted
    for use in (channel.get, lambda: channel.get(wait=False), lambda: channel.put("b")):
        with pytest.raises(Ended):
            use()


@pytest.mark.parametrize("stop", [Channel.finish, Channel.end])
def test_everyone_who_waits_for_an_item_is_let_go(stop):
    with Crew() as crew:
        channel, left = crew.channel(1), []
        for _ in range(3):
            crew.start("get", lambda: left.append(list(channel)))
        assert soon(lambda: len(channel._bells) == 3)
        stop(channel)
        crew.join()
        assert left == [[], [], []]


def test_the_end_lets_go_who_waits_for_room():
    with Crew() as crew:
        channel = crew.channel(1)
        channel.put("a")
        crew.start("put", lambda: channel.put("b"))
        assert soon(lambda: waits(channel))
        channel.end()
        crew.join()
        crew.check()


def test_an_error_in_a_thread_ends_all_and_comes_out_of_check():
    with Crew() as crew:
        channel = crew.channel(1)
        crew.start("wait", lambda: channel.put(channel.get()))
        assert soon(lambda: waits(channel))
        crew.check()
        crew.start("fail", lambda: 1 / 0)
        crew.join()
        with pytest.raises(ZeroDivisionError):
            crew.check()
        with pytest.raises(Ended):
            crew.channel(1).put("too late")


def test_of_several_errors_the_first_counts():
    first = threading.Event()

    def late() -> None:
        first.wait(30)
        raise KeyError("late")

    def early() -> None:
        raise ValueError("early")

    with Crew() as crew:
        crew.start("late", late)
        crew.start("early", early)
        assert soon(lambda: crew._error is not None)
        first.set()
        crew.join()
        with pytest.raises(ValueError, match="early"):
            crew.check()


def test_who_is_stopped_by_the_end_of_a_channel_hears_why_it_ended():
    def work() -> None:
        with Crew() as crew:
            channel = crew.channel(1)
            crew.start("fail", lambda: 1 / 0)
            channel.get()

    with pytest.raises(ZeroDivisionError):
        work()


def test_what_a_thread_raises_because_it_was_let_go_hides_no_error_of_another_crew():
    def let_go(channel: Channel) -> None:
        list(channel)
        raise ValueError("what it waited for has gone")

    def work() -> None:
        with Crew() as outer, Crew() as inner:
            channel = inner.channel(1)
            inner.start("wait", lambda: let_go(channel))
            assert soon(lambda: waits(channel))
            outer.start("fail", lambda: 1 / 0)
            outer.channel(1).get()

    with pytest.raises(ZeroDivisionError):
        work()


def test_leaving_lets_all_threads_go_and_waits_for_them():
    before = threading.active_count()

    def work() -> None:
        with Crew() as crew:
            channel = crew.channel(1)
            for _ in range(4):
                crew.start("wait", lambda: list(channel))
            assert [thread.name for thread in threading.enumerate()].count("wait") == 4
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert threading.active_count() <= before


def test_a_thread_that_cannot_be_started_leaves_none_behind(monkeypatch):
    before = threading.active_count()

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    def work() -> None:
        with Crew() as crew:
            channel = crew.channel(1)
            crew.start("wait", lambda: list(channel))
            monkeypatch.setattr(threading.Thread, "start", refuse)
            crew.start("one too many", lambda: None)

    with pytest.raises(RuntimeError, match="can't start"):
        work()
    assert threading.active_count() <= before


def test_an_interrupt_while_threads_are_waited_for_does_not_lose_them():
    main, hold, over = threading.get_ident(), threading.Event(), []

    def work() -> None:
        hold.wait(30)
        over.append(True)

    with Crew() as crew:
        crew.start("work", work)
        crew.start(
            "press", lambda: soon(lambda: waits(crew._threads[0][1])) and signal.pthread_kill(main, signal.SIGINT)
        )
        with pytest.raises(KeyboardInterrupt):
            crew.join()
        hold.set()
        crew.join()
        assert over


def test_threads_have_their_names():
    names = []
    with Crew() as crew:
        crew.start("lane 3", lambda: names.append(threading.current_thread().name))
        crew.join()
    assert names == ["lane 3"]


def test_an_interrupt_at_whatever_point_leaves_the_channel_usable():
    nth, happened = 0, True
    while happened:
        nth += 1
        with Crew() as crew:
            there, back = crew.channel(1), crew.channel(1)
            crew.start("echo", lambda there=there, back=back: [back.put(item) for item in there] and None)

            def talk(there=there, back=back) -> None:
                for i in range(3):
                    there.put(i)
                    there.put(i)
                    back.get()
                    back.get()

            happened = interrupted(talk, ("channel.py", "threading.py"), nth)
            assert there._lock.acquire(timeout=30)
            there._lock.release()
            assert back._lock.acquire(timeout=30)
            back._lock.release()
    assert nth > 30


def test_a_signal_reaches_who_waits():
    channel, main = Channel(1), threading.get_ident()
    with Crew() as crew:
        crew.start("press", lambda: soon(lambda: waits(channel)) and signal.pthread_kill(main, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            channel.get()
    channel.put("still usable")
    assert channel.get() == "still usable"
