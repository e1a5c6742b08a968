"""The client for programs with an event loop."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Unpack

from neuro_latent_core import protocol

from ._base import BaseClient, Stream
from ._coroutines import BackgroundTasks
from ._health import HEALTH_TIMEOUT_S, check_health
from ._request import check_count, make_feedback_inputs, make_inputs
from .errors import InvalidRequestError, NeuroLatentError
from .options import FeedbackDetails, GenerationOptions
from .results import Feedback, Health, Optimization, Piece, Progress, ServedAdapter, ServedModel
from .transports.base import CANCEL_TIMEOUT_S, INDEX, LOAD_ADAPTERS, LOAD_TIMEOUT_S, A, Tensors


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

    _client: "AsyncClient"
    _background_tasks: BackgroundTasks
    _loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> "AsyncOptimizationStream":
        return self

    async def __anext__(self) -> Piece:
        piece = await self._next_piece()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def __aenter__(self) -> "AsyncOptimizationStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop. What the server has not written yet is cancelled there, also if the caller is cancelled meanwhile."""
        await self._stop()

    async def _release(self, left_early: bool) -> None:
        if self._loop is asyncio.get_running_loop():  # else nothing was sent, or it went with its loop
            await self._background_tasks.run(super()._release(left_early))

    async def _next(self) -> Tensors | None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._client._check_open()
            self._transport, self._background_tasks = self._client._transport, self._client._background_tasks
            self._loop = loop
        if self._loop is not loop:
            raise InvalidRequestError("the stream began in another event loop; make one for each loop")
        return await super()._next()


class AsyncClient(BaseClient):
    """:class:`Client` for asyncio: the same settings, methods, results and errors.

    The tasks of one event loop may share it; when that has ended (``asyncio.run`` makes one a call), it connects anew
    in the next. A task that is cancelled cancels its request on the server.

    >>> async def main():
    ...     async with AsyncClient("grpc://127.0.0.1:8001") as client:
    ...         answer = await client.optimize("Create a function")
    ...         return answer.text
    >>> asyncio.run(main())
    'Create a function\\n\\nIn Python.'
    """

    _blocking = False

    @cached_property
    def _background_tasks(self) -> BackgroundTasks:
        return BackgroundTasks()

    _loop: asyncio.AbstractEventLoop | None = None
    """That of the connections; None before they were used."""

    def _check_open(self) -> None:
        super()._check_open()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a stream may be made before there is one
            return
        if self._loop is not None and self._loop is not loop:
            if not self._loop.is_closed():
                raise InvalidRequestError("the client is used in another event loop already; make one for each loop")
            self._transport = self._connect()
            vars(self).pop("_background_tasks", None)
        self._loop = loop

    async def _run(self, coroutine: Coroutine[Any, Any, A]) -> A:
        return await self._background_tasks.run(coroutine)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, after what was cancelled has ended on the server. Open streams end with an error."""
        self._closed = True
        if self._loop is not None and self._loop.is_closed():
            return  # and its connections with it
        await self._background_tasks.finish(CANCEL_TIMEOUT_S)
        await self._transport.close()

    async def optimize(
        self,
        raw_prompt: str,
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Optimization:
        """As :meth:`Client.optimize`."""
        request = self._request(protocol.UNARY_MODEL, make_inputs(raw_prompt, options), timeout, traceparent)
        return await self._optimize(request)

    async def optimize_many(
        self,
        raw_prompts: Iterable[str],
        *,
        concurrency: int = 8,
        on_progress: Callable[[Progress], None] | None = None,
        timeout: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[Optimization | NeuroLatentError]:
        """As :meth:`Client.optimize_many`."""
        prompts = list(raw_prompts)
        waiting = iter(enumerate(prompts))
        outcomes: dict[int, Optimization | NeuroLatentError] = {}

        async def work() -> None:
            for index, prompt in waiting:
                try:
                    outcomes[index] = await self.optimize(prompt, timeout=timeout, traceparent=traceparent, **options)
                except NeuroLatentError as error:
                    outcomes[index] = error
                if on_progress:
                    on_progress(Progress(len(outcomes), len(prompts), index, outcomes[index]))

        workers = [asyncio.ensure_future(work()) for _ in range(check_count("concurrency", concurrency, 1))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        return [outcomes[index] for index in range(len(prompts))]

    def stream(
        self,
        raw_prompt: str,
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncOptimizationStream:
        """As :meth:`Client.stream`, but the request is sent when the stream is first iterated."""
        request = self._request(protocol.STREAM_MODEL, make_inputs(raw_prompt, options), timeout, traceparent)
        return AsyncOptimizationStream(self, request)

    async def feedback(
        self,
        answer: Optimization | str,
        rating: Literal[1, -1],
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
        **details: Unpack[FeedbackDetails],
    ) -> Feedback:
        """As :meth:`Client.feedback`."""
        inputs = make_feedback_inputs(answer, rating, details)
        return await self._feedback(self._request(protocol.FEEDBACK_MODEL, inputs, timeout, traceparent))

    async def health(self, *, timeout: float = HEALTH_TIMEOUT_S) -> Health:
        """As :meth:`Client.health`."""
        return await check_health(self, timeout, AsyncOptimizationStream)

    async def models(self, *, timeout: float = HEALTH_TIMEOUT_S) -> tuple[ServedModel, ...]:
        """As :meth:`Client.models`."""
        return await self._ask(INDEX, timeout)

    async def adapters(self, *, timeout: float = HEALTH_TIMEOUT_S) -> tuple[ServedAdapter, ...]:
        """As :meth:`Client.adapters`."""
        return await self._adapters(timeout)

    async def load_adapters(self, *, timeout: float = LOAD_TIMEOUT_S) -> None:
        """As :meth:`Client.load_adapters`."""
        await self._ask(LOAD_ADAPTERS, timeout)
