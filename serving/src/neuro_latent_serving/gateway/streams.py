"""Answers in pieces, whose source is closed whatever becomes of them."""

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from neuro_latent_client import AsyncOptimizationStream


class ClosingResponse(StreamingResponse):
    """A streamed answer.

    Args:
        pieces: of the body.
        close: awaited when the last piece is sent, or the client has left.
    """

    def __init__(
        self, pieces: AsyncIterable[str | bytes], close: Callable[[], Awaitable[None]], **settings: Any
    ) -> None:
        super().__init__(pieces, **settings)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._close()


def event_stream(stream: AsyncOptimizationStream, events: AsyncIterable[str]) -> ClosingResponse:
    """Server-sent events made of a stream."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return ClosingResponse(events, stream.close, media_type="text/event-stream", headers=headers)
