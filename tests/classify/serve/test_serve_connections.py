"""Connections whose clients keep the server waiting: looked at by hand, so that no test waits."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from uvicorn import Config
from uvicorn.server import ServerState

from classify.serve.connections import Impatient

Connect = Callable[[Any], tuple[Impatient, "Transport"]]


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.aborted, self.unsent = False, 0

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: Any) -> None:
        pass

    def pause_reading(self) -> None:
        pass


async def never(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def at_once(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.fixture
def connect(loop) -> Iterator[Connect]:
    """Make connections to an application; in the end their clients go."""
    made: list[Impatient] = []

    def connected(app: Any) -> tuple[Impatient, Transport]:
        transport = Transport()
        made.append(Impatient(Config(app, log_config=None), ServerState(), {}, loop))
        made[-1].connection_made(transport)
        return made[-1], transport

    yield connected
    for connection in made:
        connection.connection_lost(OSError("reset"))
    turn(loop)


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Let the application do what it can now."""
    for _ in range(5):
        loop.run_until_complete(asyncio.sleep(0))


REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_who_sends_no_whole_head_is_cut_off_however_often_a_bit_comes(connect):
    connection, transport = connect(never)
    for byte in REQUEST[:2]:
        connection.data_received(bytes([byte]))
        connection.look()
    assert transport.aborted


def test_who_waits_for_an_answer_is_not_cut_off(loop, connect):
    connection, transport = connect(never)
    connection.look()
    connection.data_received(REQUEST)
    turn(loop)
    for _ in range(3):
        connection.look()
    assert not transport.aborted


def test_who_takes_nothing_of_an_answer_is_cut_off_and_who_takes_some_is_not(loop, connect):
    connection, transport = connect(never)
    connection.data_received(REQUEST)
    turn(loop)
    connection.pause_writing()
    for transport.unsent in (900, 800, 700):
        connection.look()
        assert not transport.aborted
    connection.look()
    assert transport.aborted


def test_between_requests_there_is_no_more_time_than_before_the_first(loop, connect):
    connection, transport = connect(at_once)
    for _ in range(3):
        connection.data_received(REQUEST)
        turn(loop)
        connection.look()
        assert not transport.aborted
    connection.look()
    assert transport.aborted


def test_a_connection_that_is_lost_is_looked_at_no_more(connect):
    connection, _ = connect(never)
    assert not connection._next.cancelled()
    connection.connection_lost(OSError("reset"))
    assert connection._next.cancelled()
