"""Connections of a server: bounded in number and in the time that a request takes to arrive, and left at any time."""

import asyncio
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from starlette.types import Receive  # comes with an extra

HEADERS_S = 10.0
"""How long a connection may be open without a whole head of a request."""

BODY_S = 30.0
"""How long the body of a request may take to arrive."""

MOST = 700
"""Connections of one server at a time."""

T = TypeVar("T")


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


async def while_connected(receive: "Receive", work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the client leaves.

    Raises:
        ClientLeft: before the work was done.
    """

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


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
