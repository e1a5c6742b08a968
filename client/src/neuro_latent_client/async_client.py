"""The client for programs with an event loop."""

import asyncio
from collections.abc import Callable, Iterable
from functools import cached_property
from types import TracebackType
from typing import Literal, Unpack

from ._async_stream import AsyncOptimizationStream
from ._background_tasks import BackgroundTasks
from ._base import BaseClient
from ._connect import connect_async
from ._health import HEALTH_TIMEOUT_S, PROBE_PROMPT, HealthCheck, probe_options
from ._request import CANCEL_TIMEOUT_S, InferRequest, check_count, check_timeout
from ._retry import retried_async
from ._settings import Settings
from ._transport import INDEX, LOAD_ADAPTERS, LOAD_TIMEOUT_S, AsyncTransport, Tensors
from .errors import DeadlineError, InvalidRequestError, NeuroLatentError
from .options import FeedbackDetails, GenerationOptions
from .results import Feedback, Health, Optimization, Progress, ServedModel


class AsyncClient(BaseClient[AsyncTransport]):
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

    def _connect(self, settings: Settings) -> AsyncTransport:
        return connect_async(settings)

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
            if self._given_transport is None:
                self._transport = self._connect(self._settings)
            vars(self).pop("_background_tasks", None)
        self._loop = loop

    def _connections(self) -> tuple[AsyncTransport, BackgroundTasks]:
        """Those of the running event loop."""
        self._check_open()
        return self._transport, self._background_tasks

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
        request = self._optimize_request(raw_prompt, options, timeout, traceparent)
        return self._optimization(request, await self._infer(request))

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
        plan = self._stream_plan(raw_prompt, options, timeout, traceparent)
        return AsyncOptimizationStream(plan, self._connections)

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
        request = self._feedback_request(answer, rating, details, timeout, traceparent)
        return self._feedback(request, await self._infer(request))

    async def health(self, *, timeout: float = HEALTH_TIMEOUT_S) -> Health:
        """As :meth:`Client.health`."""
        self._check_open()
        check_timeout(timeout)
        check = HealthCheck(self._url)
        try:
            for question in check.questions():
                check.answer = await self._transport.ask(question, timeout)
            if check.goes_on:
                await self._probe(timeout)
        except NeuroLatentError as error:
            check.failed(error)
        return check.result()

    async def _probe(self, timeout: float) -> None:
        """As :meth:`Client._probe`."""
        request = self._optimize_request(PROBE_PROMPT, probe_options(timeout), timeout, None)
        self._optimization(request, await self._infer(request, retries=0))
        plan = self._stream_plan(PROBE_PROMPT, probe_options(timeout), timeout, None, retries=0)
        async with AsyncOptimizationStream(plan, self._connections) as stream:
            async for _piece in stream:
                pass

    async def models(self, *, timeout: float = HEALTH_TIMEOUT_S) -> tuple[ServedModel, ...]:
        """As :meth:`Client.models`."""
        self._check_open()
        return await self._transport.ask(INDEX, check_timeout(timeout))

    async def load_adapters(self, *, timeout: float = LOAD_TIMEOUT_S) -> None:
        """As :meth:`Client.load_adapters`."""
        self._check_open()
        await self._transport.ask(LOAD_ADAPTERS, check_timeout(timeout))

    async def _infer(self, request: InferRequest, retries: int | None = None) -> Tensors:
        async def attempt(now: InferRequest) -> Tensors:
            return self._own(now, await self._transport.infer(now))

        try:
            return await retried_async(attempt, request, self._settings.retries if retries is None else retries)
        except (DeadlineError, asyncio.CancelledError):
            await self._background_tasks.run(self._transport.cancel(request.request_id))
            raise
