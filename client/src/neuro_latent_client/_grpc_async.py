"""gRPC, on a grpc.aio channel.

grpc.aio cancels a call when the task that waits for it is cancelled, and Triton 24.10 cannot handle that (see
:class:`~neuro_latent_client._grpc.GrpcResponseStream`). So calls are awaited in tasks of their own, which end when the
server does; the message of :meth:`AsyncGrpcTransport.cancel` ends it there.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import grpc
import grpc.aio

from neuro_latent_core import protocol

from ._background_tasks import BackgroundTasks
from ._failures import Failures
from ._grpc_wire import END_S, QUESTIONS, decode, decode_streamed, encode, error_of, make_channel, make_methods
from ._request import CANCEL_TIMEOUT_S, InferRequest
from ._settings import Settings
from ._transport import A, Question, Tensors
from .errors import NeuroLatentError


class AsyncGrpcTransport:
    """A channel that the tasks of one event loop share."""

    name = "grpc"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._address = settings.endpoint.url
        self._background_tasks = BackgroundTasks()

    @cached_property
    def _channel(self) -> Any:  # belongs to the event loop it is made in
        return make_channel(grpc.aio, self._settings)

    @cached_property
    def _methods(self) -> dict[str, Any]:
        return make_methods(self._channel)

    async def infer(self, request: InferRequest) -> Tensors:
        failures = Failures.of(self._address, request)
        response = await self._call("ModelInfer", encode(request), request.remaining_s, failures, request.headers)
        return decode(response, failures)

    async def stream(self, request: InferRequest) -> "AsyncGrpcResponseStream":
        call = self._methods["ModelStreamInfer"](
            iter([encode(request)]), timeout=request.remaining_s, metadata=tuple(request.headers.items())
        )
        return AsyncGrpcResponseStream(call, Failures.of(self._address, request), self._background_tasks)

    async def cancel(self, request_id: str) -> None:
        inputs = {protocol.CANCEL_INPUT: request_id}
        request = InferRequest(protocol.CANCEL_MODEL, "", inputs, CANCEL_TIMEOUT_S, self._settings.headers)
        # UsageError: the channel is closed already.
        with contextlib.suppress(NeuroLatentError, grpc.aio.UsageError):
            async for _ in await self.stream(request):
                pass

    async def ask(self, question: Question[A], timeout_s: float) -> A:
        method, message_for, read = QUESTIONS[question.about]
        failures = Failures(self._address, timeout_s, question.model)
        answer: A = read(
            await self._call(method, message_for(question.model), timeout_s, failures, self._settings.headers)
        )
        return answer

    async def close(self) -> None:
        await self._background_tasks.finish(END_S)
        if "_channel" in vars(self):  # one was needed
            await self._channel.close()

    async def _call(
        self, method: str, message: object, timeout_s: float, failures: Failures, headers: Mapping[str, str]
    ) -> Any:
        async def answer() -> Any:
            return await self._methods[method](message, timeout=timeout_s, metadata=tuple(headers.items()))

        try:
            return await self._background_tasks.run(answer())
        except grpc.RpcError as error:
            raise error_of(error, failures) from error


class AsyncGrpcResponseStream:
    """The responses of one ModelStreamInfer call with one request; one closed early is read to its end first."""

    def __init__(self, call: Any, failures: Failures, background_tasks: BackgroundTasks) -> None:
        self._call = call
        self._failures = failures
        self._background_tasks = background_tasks
        self._closed = False
        self._read: asyncio.Task[Any] | None = None

    def __aiter__(self) -> "AsyncGrpcResponseStream":
        return self

    async def __anext__(self) -> Tensors:
        try:
            response = None if self._closed else await self._next()
        except grpc.RpcError as error:
            if self._closed:
                raise StopAsyncIteration from None
            raise error_of(error, self._failures) from error
        if self._closed or response is grpc.aio.EOF:
            raise StopAsyncIteration
        return decode_streamed(response, self._failures)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._background_tasks.run(self._read_to_the_end())

    async def _next(self) -> Any:
        """The next response. A reading that its caller no longer waits for is kept for the next one."""
        if self._read is None:
            self._read = asyncio.ensure_future(self._call.read())
        reading = self._read
        response = await asyncio.shield(reading)
        if self._read is reading:
            self._read = None
        return response

    async def _read_to_the_end(self) -> None:
        try:
            async with asyncio.timeout(END_S):
                while not self._call.done() and await self._next() is not grpc.aio.EOF:
                    pass
        except (TimeoutError, grpc.RpcError, asyncio.CancelledError):
            self._call.cancel()
