"""HTTP, on a pool of connections: KServe's JSON for one answer, Triton's ``generate_stream`` (server-sent events) for a
stream."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import httpx2

from neuro_latent_core import protocol

from .._endpoint import Settings
from .._failures import Failures, names_unknown_model
from .._request import WIRE_TYPES, InferRequest
from ..errors import NeuroLatentError
from ..results import ServedModel
from .base import CANCEL_TIMEOUT_S, A, Question, ResponseStream, Tensors


class HttpTransport:
    """A pool of connections that threads share."""

    name = "http"
    _library: Any = httpx2.Client

    def __init__(self, settings: Settings) -> None:
        endpoint = settings.endpoint
        self._address = endpoint.url
        self._http: Any = self._library(
            base_url=f"{endpoint.scheme}://{endpoint.netloc}{endpoint.path}",
            headers=dict(settings.headers),
            limits=httpx2.Limits(max_connections=None),  # every open stream holds one
            trust_env=not endpoint.is_loopback,  # a proxy from the environment cannot reach this machine's loopback
            verify=settings.tls.context() if settings.tls else True,
        )

    async def infer(self, request: InferRequest) -> Tensors:
        inputs = [
            {"name": name, "datatype": WIRE_TYPES[name], "shape": [1, 1], "data": [value]}
            for name, value in request.inputs.items()
        ]
        failures = Failures.of(self._address, request)
        return _read_tensors(await self._post(request, "infer", {"inputs": inputs}, failures), failures)

    async def stream(self, request: InferRequest) -> ResponseStream:
        failures = Failures.of(self._address, request)
        response = await self._post(request, "generate_stream", request.inputs, failures, stream=True)
        if response.status_code != 200:  # the answer is the error that stands in place of a stream
            raise _stream_error(response, failures)
        return self._responses(response, request, failures)

    async def cancel(self, request_id: str) -> None:
        failures = Failures(self._address, CANCEL_TIMEOUT_S, protocol.CANCEL_MODEL)
        request = self._http.build_request(
            "POST",
            f"/v2/models/{protocol.CANCEL_MODEL}/generate_stream",
            json={protocol.CANCEL_INPUT: request_id},
            timeout=CANCEL_TIMEOUT_S,
        )
        # RuntimeError: the pool is closed already.
        with contextlib.suppress(NeuroLatentError, RuntimeError):
            await self._send(request, CANCEL_TIMEOUT_S, failures)

    async def ask(self, question: Question[A], timeout_s: float) -> A:
        method, path, read = _QUESTIONS[question.about]
        failures = Failures(self._address, timeout_s, question.model)
        request = self._http.build_request(
            method, path.format(question.model), json={} if method == "POST" else None, timeout=timeout_s
        )
        answer: A = read(await self._send(request, timeout_s, failures), failures)
        return answer

    async def close(self) -> None:
        self._http.close()

    async def _post(
        self,
        request: InferRequest,
        verb: str,
        body: Mapping[str, object],
        failures: Failures,
        *,
        stream: bool = False,
    ) -> httpx2.Response:
        timeout_s = request.remaining_s
        message = self._http.build_request(
            "POST",
            f"/v2/models/{request.model}/{verb}",
            json={"id": request.request_id, **body},
            headers=dict(request.headers),
            timeout=timeout_s,
        )
        return await self._send(message, timeout_s, failures, stream=stream)

    async def _send(
        self, request: httpx2.Request, timeout_s: float, failures: Failures, *, stream: bool = False
    ) -> httpx2.Response:
        """The response; with ``stream`` its body is still to come, unless it is an error."""
        with network(failures):
            response: httpx2.Response = self._http.send(request, stream=stream)
            if stream and response.status_code != 200:
                with contextlib.closing(response):
                    response.read()
            return response

    def _responses(self, response: httpx2.Response, request: InferRequest, failures: Failures) -> ResponseStream:
        return _ResponseStream(response, request, failures)


class AsyncHttpTransport(HttpTransport):
    """A pool of connections that the tasks of one event loop share."""

    _library = httpx2.AsyncClient

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(
        self, request: httpx2.Request, timeout_s: float, failures: Failures, *, stream: bool = False
    ) -> httpx2.Response:
        with network(failures):
            async with asyncio.timeout(timeout_s):
                response: httpx2.Response = await self._http.send(request, stream=stream)
            if stream and response.status_code != 200:
                async with contextlib.aclosing(response):
                    await response.aread()
            return response

    def _responses(self, response: httpx2.Response, request: InferRequest, failures: Failures) -> ResponseStream:
        return _AsyncResponseStream(response, request, failures)


class _ResponseStream:
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

    async def __anext__(self) -> Tensors:
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
            raise StopAsyncIteration
        return _read_event(event.data, self._failures)

    async def close(self) -> None:
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


class _AsyncResponseStream:
    """The same for an event loop."""

    def __init__(self, response: httpx2.Response, request: InferRequest, failures: Failures) -> None:
        self._response = response
        self._events = aiter(httpx2.EventSource(response))
        self._request = request
        self._failures = failures
        self._closed = False

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
        return _read_event(event.data, self._failures)

    async def close(self) -> None:
        self._closed = True
        await self._response.aclose()


@contextlib.contextmanager
def network(failures: Failures) -> Iterator[None]:
    """Turn what the HTTP library raises into this package's errors."""
    try:
        yield
    except (httpx2.TimeoutException, TimeoutError) as error:
        raise failures.deadline() from error
    except httpx2.SSEError as error:
        raise failures.server(str(error)) from error
    except httpx2.RemoteProtocolError as error:
        if "illegal request line" in str(error):  # the first bytes of HTTP/2, which gRPC speaks
            raise failures.other_protocol("a gRPC port", "HTTP") from error
        raise failures.unavailable(str(error)) from error
    except (httpx2.TransportError, OSError) as error:
        # OSError: anyio lets an ssl.SSLError through when a server refuses a certificate after the handshake.
        raise failures.unavailable(str(error)) from error
    except httpx2.HTTPError as error:
        raise failures.server(str(error)) from error


def _read_event(data: str, failures: Failures) -> Tensors:
    """One response of a stream, or the error in its place."""
    with _reading(failures):
        fields: dict[str, Any] = json.loads(data)
        error = fields.get("error")
        tensors: Tensors = {
            name: value if isinstance(value, list) else [value]
            for name, value in fields.items()
            if name in protocol.STREAM_OUTPUT_TYPES
        }
    if error is not None:
        raise failures.without_status(str(error))
    return tensors


def _is_ok(response: httpx2.Response, failures: Failures) -> bool:
    return response.status_code == 200


def _json_reader(read: Callable[[Any], A]) -> Callable[[httpx2.Response, Failures], A]:
    """What reads a whole answer, by ``read`` of its JSON."""

    def reader(response: httpx2.Response, failures: Failures) -> A:
        _check_ok(response, failures)
        with _reading(failures):
            return read(response.json())

    return reader


def _check_ok(response: httpx2.Response, failures: Failures) -> None:
    if response.status_code != 200:
        raise _error_of(response, failures)


_read_tensors: Final[Callable[[httpx2.Response, Failures], Tensors]] = _json_reader(
    lambda answer: {output["name"]: output["data"] for output in answer["outputs"]}
)
_QUESTIONS: Final[dict[str, tuple[str, str, Callable[[httpx2.Response, Failures], Any]]]] = {
    "live": ("GET", "/v2/health/live", _is_ok),
    "ready": ("GET", "/v2/health/ready", _is_ok),
    "model_ready": ("GET", "/v2/models/{}/ready", _is_ok),
    "model_versions": (
        "GET",
        "/v2/models/{}",
        _json_reader(lambda answer: [str(version) for version in answer["versions"]]),
    ),
    "index": (
        "POST",
        "/v2/repository/index",
        _json_reader(
            lambda answer: tuple(
                ServedModel(m["name"], m.get("version", ""), m.get("state") == "READY", m.get("reason", ""))
                for m in answer
            )
        ),
    ),
    "load": ("POST", "/v2/repository/models/{}/load", _check_ok),
}
"""For each question about the server: the method, the path with the model's place, and how the answer is read."""


def _stream_error(response: httpx2.Response, failures: Failures) -> NeuroLatentError:
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        return failures.without_status(_reason(response))
    return _error_of(response, failures)


@contextlib.contextmanager
def _reading(failures: Failures) -> Iterator[None]:
    """Turn an answer that is not the JSON of the contract into ServerError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise failures.server(f"the answer is not what Triton writes ({type(error).__name__}: {error})") from error


def _reason(response: httpx2.Response) -> str:
    """The error text of a response: JSON, or one server-sent event with the same JSON, or what there is."""
    text = response.text.strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text.removeprefix("data:"))["error"])
    return text[:200] or response.reason_phrase


def _error_of(response: httpx2.Response, failures: Failures) -> NeuroLatentError:
    status, text = response.status_code, _reason(response)
    if status == 404 or names_unknown_model(text):
        return failures.model_not_found(text)
    if status in (401, 403):
        return failures.denied(text)
    if status in (400, 413, 422):
        return failures.invalid(text)
    if status in (408, 504):
        return failures.deadline()
    if status in (429, 502, 503):
        return failures.unavailable(text)
    return failures.server(f"{text} (HTTP {status})")
