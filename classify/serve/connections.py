"""Connections that do not wait for ever for a client that is slow, or gone without a word."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE_S = 30.0
"""Between two looks at a connection. uvicorn itself has a limit of time for the pause between two requests alone."""


class Impatient(H11Protocol):
    """HTTP/1.1, where a client may keep the server waiting no longer than from one look to the next.

    What is waited for: the first line and the headers of a request, and that some of an answer is taken. Bodies have
    limits of their own, as they are read.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (as in uvicorn)
        """Begin to look."""
        super().connection_made(transport)
        self._seen: tuple[Any, int] | None = None
        self._next = self.loop.call_later(PATIENCE_S, self.look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        self._next.cancel()
        super().connection_lost(exc)

    def look(self) -> None:
        """End the connection if it waits for its client just as at the last look."""
        seen, self._seen = self._seen, self._waits()
        if seen is not None and seen == self._seen:
            self.transport.abort()
        else:
            self._next = self.loop.call_later(PATIENCE_S, self.look)

    def _waits(self) -> tuple[Any, int] | None:
        """Say behind which request the client is waited for, and the bytes that it has not taken; None if it is not."""
        between = self.cycle is None or self.cycle.response_complete
        if not (between or self.flow.write_paused):
            return None
        return self.cycle, self.transport.get_write_buffer_size()
