"""Text that arrives piece by piece, in an event loop."""

import asyncio
from collections.abc import Callable
from types import TracebackType

from ._background_tasks import BackgroundTasks
from ._request import InferRequest
from ._retry import retried_async
from ._stream import Stream, StreamPlan
from ._transport import AsyncResponseStream, AsyncTransport, Tensors
from .errors import InvalidRequestError
from .results import Piece


class AsyncOptimizationStream(Stream):
    """An asynchronous iterator of :class:`Piece`, and a context manager that cancels what is left when left early.

    The request is sent when it is first iterated. Iterating raises the errors of :meth:`Client.optimize`. One task
    iterates; any task of its event loop, which is the one that it is first iterated in, may :meth:`close`.

    >>> async def main():
    ...     async with async_client, async_client.stream("Create a function") as stream:
    ...         async for piece in stream:
    ...             print(piece.text, end="", flush=True)
    ...     return stream.result.finish_reason
    >>> asyncio.run(main())
    Create a function
    <BLANKLINE>
    In Python.'stop'
    """

    _transport: AsyncTransport
    _background_tasks: BackgroundTasks

    def __init__(self, plan: StreamPlan, connect: Callable[[], tuple[AsyncTransport, BackgroundTasks]]) -> None:
        super().__init__(plan)
        self._connect = connect  # to what belongs to the running event loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._responses: AsyncResponseStream | None = None

    def __aiter__(self) -> "AsyncOptimizationStream":
        return self

    async def __anext__(self) -> Piece:
        while not self._over:
            try:
                piece = self._take(await self._next())
            except BaseException:
                await self.close()
                raise
            if piece is not None:
                return piece
        raise StopAsyncIteration

    async def __aenter__(self) -> "AsyncOptimizationStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop. What the server has not written yet is cancelled there, also if the caller is cancelled meanwhile."""
        left_early = not self._over
        self._over = True
        if self._loop is asyncio.get_running_loop():  # else nothing was sent, or it went with its loop
            await self._background_tasks.run(self._close(left_early))

    async def _close(self, left_early: bool) -> None:
        if left_early:
            await self._transport.cancel(self.request_id)
        if self._responses is not None:
            await self._responses.close()

    async def _next(self) -> Tensors | None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._transport, self._background_tasks = self._connect()
            self._loop = loop
        if self._loop is not loop:
            raise InvalidRequestError("the stream began in another event loop; make one for each loop")
        if self._answered and self._responses is not None:
            return await anext(self._responses, None)
        return await retried_async(self._first, self._plan.request, self._plan.retries)

    async def _first(self, request: InferRequest) -> Tensors | None:
        if self._over:  # closed meanwhile
            return None
        if self._responses is not None:
            await self._responses.close()
        self._responses = await self._transport.stream(request)
        return await anext(self._responses, None)
