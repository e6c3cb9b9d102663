"""Shards on their way into the cache."""

import threading
from pathlib import Path

import pytest

from extract.errors import StoreError
from extract.store import arrivals
from extract.store.arrivals import Arrivals, AtOnce

pytestmark = pytest.mark.usefixtures("no_thread_left")


class Played:
    """A relay that refuses what is called damaged, cannot read what is called away, and waits for what is held."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go, self.begun = threading.Event(), threading.Event()

    def fetch(self, name: str, folder: Path, key: str) -> str:
        assert (folder, key) == (Path("set"), "key")
        self.asked.append(name)
        if name == "shards/held":
            self.begun.set()
            self.go.wait()
        if name == "shards/away":
            raise StoreError("the network is down")
        return "bad" if name == "shards/damaged" else ""

    def stop(self) -> None:
        self.go.set()


def come(expected: Arrivals) -> dict[object, str]:
    found = {}
    while expected.left:
        found.update(expected.here(timeout_s=60))
    return found


def test_each_group_comes_whole_or_is_refused():
    with Arrivals(Played(), Path("set"), "key") as expected:
        expected.expect(1, ["a", "b"])
        expected.expect(2, ["a", "damaged", "c"])
        expected.expect(3, [])
        assert come(expected) == {1: "", 2: "bad", 3: ""}


def test_where_nothing_can_be_read_that_is_raised():
    with Arrivals(Played(), Path("set"), "key") as expected:
        expected.expect(1, ["away"])
        with pytest.raises(StoreError, match="network is down"):
            come(expected)


def test_on_leaving_what_has_not_begun_does_not_begin(monkeypatch):
    monkeypatch.setattr(arrivals, "FETCHES", 1)
    played = Played()
    with Arrivals(played, Path("set"), "key") as expected:
        expected.expect(1, ["held"])
        assert played.begun.wait(60)
        expected.expect(2, ["a"])
        assert list(expected.here()) == []
        assert expected.left == 2
    assert played.asked == ["shards/held"]


def test_what_lies_there_comes_at_once():
    expected = AtOnce()
    for number in range(2):
        expected.expect(number, ["a"])
    assert expected.left == 2
    assert list(expected.here()) == [(0, ""), (1, "")]
    assert expected.left == 0
