"""HTTP, on a pool of connections; a stream comes as server-sent events."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

import httpx2

from neuro_latent_core import protocol

from .._endpoint import Settings
from .._failures import Failures
from .._request import WIRE_TYPES, InferRequest
from ..errors import NeuroLatentError
from ..results import ServedModel
from ._http_api import Api, Questions, check_ok, error_of, is_ok, is_problem, json_reader, reading, reason
from .base import CANCEL_TIMEOUT_S, CONNECT_TIMEOUT_S, A, Question, ResponseStream, Tensors
from .rest import RestApi

LIVE_PATH: Final = "/v2/health/live"
"""Of Triton; a gateway has no such path, and says so by a problem."""


_QUESTIONS: Final[Questions] = {
    "live": ("GET", LIVE_PATH, is_ok),
    "ready": ("GET", "/v2/health/ready", is_ok),
    "model_ready": ("GET", "/v2/models/{}/ready", is_ok),
    "model_versions": (
        "GET",
        "/v2/models/{}",
        json_reader(lambda answer: [str(version) for version in answer["versions"]]),
    ),
    "index": (
        "POST",
        "/v2/repository/index",
        json_reader(
            lambda answer: tuple(
                ServedModel(m["name"], m.get("version", ""), m.get("state") == "READY", m.get("reason", ""))
                for m in answer
            )
        ),
    ),
    "load": ("POST", "/v2/repository/models/{}/load", check_ok),
}


class TritonApi:
    """KServe's JSON for one answer, Triton's ``generate_stream`` for a stream."""

    name = "http"
    questions = _QUESTIONS

    def message(self, request: InferRequest, *, stream: bool) -> tuple[str, str, Any]:
        body: Mapping[str, object] = request.inputs
        if not stream:
            inputs = [
                {"name": name, "datatype": WIRE_TYPES[name], "shape": [1, 1], "data": [value]}
                for name, value in request.inputs.items()
            ]
            body = {"inputs": inputs}
        path = f"/v2/models/{request.model}/{'generate_stream' if stream else 'infer'}"
        return "POST", path, {"id": request.request_id, **body}

    tensors = staticmethod(json_reader(lambda answer: {output["name"]: output["data"] for output in answer["outputs"]}))

    def responses(self, event: httpx2.ServerSentEvent, failures: Failures) -> list[Tensors]:
        with reading(failures):
            fields: dict[str, Any] = json.loads(event.data)
            error = fields.get("error")
            tensors: Tensors = {
                name: value if isinstance(value, list) else [value]
                for name, value in fields.items()
                if name in protocol.STREAM_OUTPUT_TYPES
            }
        if error is not None:
            raise failures.without_status(str(error))
        return [tensors]


TRITON: Final = TritonApi()
GATEWAY: Final = RestApi()


class HttpTransport:
    """A pool of connections that threads share, to a Triton or to a gateway: the first call finds out which."""

    _library: Any = httpx2.Client

    def __init__(self, settings: Settings) -> None:
        endpoint = settings.endpoint
        self._address = endpoint.url
        self._known_api: Api | None = None
        self._streams: WeakValueDictionary[str, _ResponseStream | _AsyncResponseStream] = WeakValueDictionary()
        self._http: Any = self._library(
            base_url=f"{endpoint.scheme}://{endpoint.netloc}{endpoint.path}",
            headers=dict(settings.headers),
            limits=httpx2.Limits(max_connections=None),  # every open stream holds one
            trust_env=not endpoint.is_loopback,  # a proxy from the environment cannot reach this machine's loopback
            verify=settings.tls.context() if settings.tls else True,
        )

    @property
    def name(self) -> str:
        return (self._known_api or TRITON).name

    async def infer(self, request: InferRequest) -> Tensors:
        failures = Failures.of(self._address, request)
        api = await self._api(request.remaining_s, failures)
        return api.tensors(await self._post(api, request, failures), failures)

    async def stream(self, request: InferRequest) -> ResponseStream:
        failures = Failures.of(self._address, request)
        api = await self._api(request.remaining_s, failures)
        response = await self._post(api, request, failures, stream=True)
        if response.status_code != 200:  # the answer is the error that stands in place of a stream
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                raise failures.without_status(reason(response))
            raise error_of(response, failures)
        responses = self._responses(api, response, request, failures)
        self._streams[request.request_id] = responses
        return responses

    async def cancel(self, request_id: str) -> None:
        if self._known_api is GATEWAY:  # which cancels what is asked over a connection that is closed
            if responses := self._streams.get(request_id):
                await responses.close()
            return
        failures = Failures(self._address, CANCEL_TIMEOUT_S, protocol.CANCEL_MODEL)
        path = f"/v2/models/{protocol.CANCEL_MODEL}/generate_stream"
        # RuntimeError: the pool is closed already.
        with contextlib.suppress(NeuroLatentError, RuntimeError):
            await self._request("POST", path, {protocol.CANCEL_INPUT: request_id}, CANCEL_TIMEOUT_S, failures)

    async def ask(self, question: Question[A], timeout_s: float) -> A:
        failures = Failures(self._address, timeout_s, question.model)
        method, path, read = (await self._api(timeout_s, failures)).questions[question.about]
        body: dict[str, object] | None = {} if method == "POST" else None
        answer: A = read(await self._request(method, path.format(question.model), body, timeout_s, failures), failures)
        return answer

    async def close(self) -> None:
        self._http.close()

    async def _api(self, timeout_s: float, failures: Failures) -> Api:
        """The API that the server has; one that does not say so now is asked again in the next call."""
        if self._known_api is None:
            response = await self._request("GET", LIVE_PATH, None, timeout_s, failures)
            if response.status_code == 200:
                self._known_api = TRITON
            elif response.status_code == 404 and is_problem(response):
                self._known_api = GATEWAY
            elif response.status_code in (429, 502, 503):  # of a proxy before either
                raise failures.unavailable(f"HTTP {response.status_code}")
        return self._known_api or TRITON

    async def _post(
        self, api: Api, request: InferRequest, failures: Failures, *, stream: bool = False
    ) -> httpx2.Response:
        method, path, body = api.message(request, stream=stream)
        headers = {"x-request-id": request.request_id, **request.headers}
        return await self._request(method, path, body, request.remaining_s, failures, headers, stream=stream)

    async def _request(
        self,
        method: str,
        path: str,
        body: Any,
        timeout_s: float,
        failures: Failures,
        headers: Mapping[str, str] | None = None,
        *,
        stream: bool = False,
    ) -> httpx2.Response:
        timeout = httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
        request = self._http.build_request(method, path, json=body, headers=headers, timeout=timeout)
        return await self._send(request, timeout_s, failures, stream=stream)

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

    def _responses(
        self, api: Api, response: httpx2.Response, request: InferRequest, failures: Failures
    ) -> "_ResponseStream | _AsyncResponseStream":
        return _ResponseStream(api, response, request, failures)


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

    def _responses(
        self, api: Api, response: httpx2.Response, request: InferRequest, failures: Failures
    ) -> "_AsyncResponseStream":
        return _AsyncResponseStream(api, response, request, failures)


class _ResponseStream:
    """The responses that the events of one streamed answer bring."""

    def __init__(self, api: Api, response: httpx2.Response, request: InferRequest, failures: Failures) -> None:
        self._api = api
        self._ready: list[Tensors] = []
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
        while self._closed or not self._ready:
            self._ready = self._api.responses(self._next(), self._failures)
        return self._ready.pop(0)

    def _next(self) -> httpx2.ServerSentEvent:
        """The next event. Raises StopAsyncIteration at the end."""
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
        return event

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

    def __init__(self, api: Api, response: httpx2.Response, request: InferRequest, failures: Failures) -> None:
        self._api = api
        self._ready: list[Tensors] = []
        self._response = response
        self._events = aiter(httpx2.EventSource(response))
        self._request = request
        self._failures = failures
        self._closed = False

    async def __anext__(self) -> Tensors:
        while self._closed or not self._ready:
            self._ready = self._api.responses(await self._next(), self._failures)
        return self._ready.pop(0)

    async def _next(self) -> httpx2.ServerSentEvent:
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
        return event

    async def close(self) -> None:
        self._closed = True
        await self._response.aclose()


@contextlib.contextmanager
def network(failures: Failures) -> Iterator[None]:
    """Turn what the HTTP library raises into this package's errors."""
    try:
        yield
    except httpx2.ConnectTimeout as error:
        raise failures.unreachable(CONNECT_TIMEOUT_S) from error
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
