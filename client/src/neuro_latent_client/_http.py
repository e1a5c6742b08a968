"""HTTP, on a pool of connections."""

import contextlib
import socket
import threading

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


class HttpTransport:
    """A pool of connections that threads share."""

    name = "http"

    def __init__(self, settings: Settings) -> None:
        self._http = httpx2.Client(**client_arguments(settings))
        self._address = settings.endpoint.url

    def infer(self, request: InferRequest) -> Tensors:
        return self._answer(infer_exchange(self._address, request))

    def stream(self, request: InferRequest) -> "HttpResponseStream":
        exchange = stream_exchange(self._address, request)
        response = self._send(exchange, stream=True)
        if response.status_code == 200:
            return HttpResponseStream(response, request, exchange.failures)
        with contextlib.closing(response), network(exchange.failures):
            response.read()
        raise exchange.answer(response)

    def cancel(self, request_id: str) -> None:
        # RuntimeError: the pool is closed already.
        with contextlib.suppress(NeuroLatentError, RuntimeError):
            self._send(cancel_exchange(self._address, request_id))

    def ask(self, question: Question[A], timeout_s: float) -> A:
        return self._answer(question_exchange(self._address, question, timeout_s))

    def close(self) -> None:
        self._http.close()

    def _answer(self, exchange: Exchange[A]) -> A:
        return exchange.answer(self._send(exchange))

    def _send(self, exchange: Exchange[A], stream: bool = False) -> httpx2.Response:
        with network(exchange.failures):
            return self._http.send(exchange.request(self._http), stream=stream)


class HttpResponseStream:
    """The events of one ``generate_stream`` response."""

    def __init__(self, response: httpx2.Response, request: InferRequest, failures: Failures) -> None:
        self._response = response
        self._events = iter(httpx2.EventSource(response))
        self._failures = failures
        self._closed = False
        self._expired = False
        # The HTTP library limits the wait for each read; only a timer can limit the whole.
        self._timer = threading.Timer(request.remaining_s, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def __iter__(self) -> "HttpResponseStream":
        return self

    def __next__(self) -> Tensors:
        try:
            with network(self._failures):
                event = next(self._events, None)
        except NeuroLatentError:
            if not (self._closed or self._expired):
                raise
            event = None
        if self._expired and event is None:
            raise self._failures.deadline()
        if self._closed or event is None:
            self._timer.cancel()
            raise StopIteration
        return read_event(event.data, self._failures)

    def close(self) -> None:
        self._closed = True
        self._timer.cancel()
        self._hang_up()
        self._response.close()

    def _expire(self) -> None:
        self._expired = True
        self._hang_up()

    def _hang_up(self) -> None:
        """Shut the socket down: unlike closing it, this wakes a thread that waits to read from it."""
        network_stream = self._response.extensions["network_stream"]
        connection: socket.socket | None = network_stream.get_extra_info("socket")
        if connection is not None and not self._response.is_closed:
            with contextlib.suppress(OSError):  # the server may have hung up first
                connection.shutdown(socket.SHUT_RDWR)
