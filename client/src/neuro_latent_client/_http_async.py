"""HTTP, on a pool of connections of one event loop."""

import asyncio
import contextlib

import httpx2

from ._failures import Failures
from ._http_wire import (
    Exchange,
    cancel_exchange,
    client_arguments,
    infer_exchange,
    network,
    question_exchange,
    read_event,
    stream_exchange,
)
from ._request import InferRequest
from ._settings import Settings
from ._transport import A, Question, Tensors
from .errors import NeuroLatentError


class AsyncHttpTransport:
    """A pool of connections that the tasks of one event loop share."""

    name = "http"

    def __init__(self, settings: Settings) -> None:
        self._http = httpx2.AsyncClient(**client_arguments(settings))
        self._address = settings.endpoint.url

    async def infer(self, request: InferRequest) -> Tensors:
        return await self._answer(infer_exchange(self._address, request))

    async def stream(self, request: InferRequest) -> "AsyncHttpResponseStream":
        exchange = stream_exchange(self._address, request)
        response = await self._send(exchange, stream=True)
        if response.status_code == 200:
            return AsyncHttpResponseStream(response, request, exchange.failures)
        with network(exchange.failures):
            async with contextlib.aclosing(response):
                await response.aread()
        raise exchange.answer(response)

    async def cancel(self, request_id: str) -> None:
        # RuntimeError: the pool is closed already.
        with contextlib.suppress(NeuroLatentError, RuntimeError):
            await self._send(cancel_exchange(self._address, request_id))

    async def ask(self, question: Question[A], timeout_s: float) -> A:
        return await self._answer(question_exchange(self._address, question, timeout_s))

    async def close(self) -> None:
        await self._http.aclose()

    async def _answer(self, exchange: Exchange[A]) -> A:
        return exchange.answer(await self._send(exchange))

    async def _send(self, exchange: Exchange[A], stream: bool = False) -> httpx2.Response:
        with network(exchange.failures):
            async with asyncio.timeout(exchange.timeout_s):
                return await self._http.send(exchange.request(self._http), stream=stream)


class AsyncHttpResponseStream:
    """The events of one ``generate_stream`` response."""

    def __init__(self, response: httpx2.Response, request: InferRequest, failures: Failures) -> None:
        self._response = response
        self._events = aiter(httpx2.EventSource(response))
        self._request = request
        self._failures = failures
        self._closed = False

    def __aiter__(self) -> "AsyncHttpResponseStream":
        return self

    async def __anext__(self) -> Tensors:
        try:
            with network(self._failures):
                async with asyncio.timeout(self._request.remaining_s):
                    event = None if self._closed else await anext(self._events, None)
        except NeuroLatentError:
            if not self._closed:
                raise
            event = None
        if event is None:
            raise StopAsyncIteration
        return read_event(event.data, self._failures)

    async def close(self) -> None:
        self._closed = True
        await self._response.aclose()
