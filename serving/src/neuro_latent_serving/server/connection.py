"""Connections of a server: bounded in number, and in the time that a request's head may take."""

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADERS_S = 10.0
"""How long a connection may be open without a whole head of a request."""

MOST = 700
"""Connections of one server at a time."""


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Ends when it brings no request in time, or when it brings none and there are too many."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._wait()
        if len(self.connections) > MOST:
            idle = [other for other in self.connections if other.is_idle()]
            min(idle, key=lambda other: other.since).transport.abort()  # at most this one itself

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self.since = time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(HEADERS_S, self._give_up)

    def _give_up(self) -> None:
        if self.is_idle():
            self.transport.abort()
