"""HTTP: KServe's JSON for one answer, Triton's ``generate_stream`` (server-sent events) for a stream."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from . import protocol
from ._endpoint import Endpoint
from ._failures import Failures, names_unknown_model
from ._request import CANCEL_TIMEOUT_S, InferRequest
from ._transport import Tensors
from .errors import NeuroLatentError


class HttpTransport:
    """A pool of connections, without a limit of its own: every open stream holds one."""

    name = "http"

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str]) -> None:
        self._http = httpx2.Client(
            base_url=f"{endpoint.scheme}://{endpoint.netloc}{endpoint.path}",
            headers=dict(headers),
            limits=httpx2.Limits(max_connections=None),
            trust_env=not endpoint.is_loopback,  # a proxy from the environment cannot reach this machine's loopback
        )
        self._address = endpoint.url

    def infer(self, request: InferRequest) -> Tensors:
        failures = Failures(self._address, request.model, request.request_id)
        inputs = [
            {"name": name, "datatype": protocol.INPUT_TYPES[name], "shape": [1, 1], "data": [value]}
            for name, value in request.inputs.items()
        ]
        body = {"id": request.request_id, "inputs": inputs}
        response = self._send("POST", f"/v2/models/{request.model}/infer", request.timeout_s, failures, body)
        if response.status_code != 200:
            raise _error_of(response.status_code, _reason(response), request.timeout_s, failures)
        with _reading(failures):
            return {output["name"]: output["data"] for output in response.json()["outputs"]}

    def stream(self, request: InferRequest) -> "HttpResponseStream":
        failures = Failures(self._address, request.model, request.request_id)
        deadline_s = time.monotonic() + request.timeout_s
        body = {"id": request.request_id, **request.inputs}
        path = f"/v2/models/{request.model}/generate_stream"
        response = self._send("POST", path, request.timeout_s, failures, body, stream=True)
        if response.status_code == 200:
            return HttpResponseStream(response, request.timeout_s, deadline_s, failures)
        with contextlib.closing(response), _network(request.timeout_s, failures):
            response.read()
        is_event = response.headers.get("content-type", "").startswith("text/event-stream")
        if is_event:
            raise failures.without_status(_reason(response))
        raise _error_of(response.status_code, _reason(response), request.timeout_s, failures)

    def cancel(self, request_id: str) -> None:
        path = f"/v2/models/{protocol.CANCEL_MODEL}/generate_stream"
        # RuntimeError: the pool is closed already.
        with contextlib.suppress(NeuroLatentError, RuntimeError):
            self._send("POST", path, CANCEL_TIMEOUT_S, Failures(self._address), {protocol.CANCEL_INPUT: request_id})

    def server_live(self, timeout_s: float) -> bool:
        return self._get("/v2/health/live", timeout_s).status_code == 200

    def server_ready(self, timeout_s: float) -> bool:
        return self._get("/v2/health/ready", timeout_s).status_code == 200

    def model_ready(self, model: str, timeout_s: float) -> bool:
        return self._get(f"/v2/models/{model}/ready", timeout_s).status_code == 200

    def model_versions(self, model: str, timeout_s: float) -> list[str]:
        failures = Failures(self._address, model)
        response = self._get(f"/v2/models/{model}", timeout_s)
        if response.status_code != 200:
            raise _error_of(response.status_code, _reason(response), timeout_s, failures)
        with _reading(failures):
            return [str(version) for version in response.json()["versions"]]

    def close(self) -> None:
        self._http.close()

    def _get(self, path: str, timeout_s: float) -> httpx2.Response:
        return self._send("GET", path, timeout_s, Failures(self._address))

    def _send(
        self,
        method: str,
        path: str,
        timeout_s: float,
        failures: Failures,
        body: Mapping[str, object] | None = None,
        stream: bool = False,
    ) -> httpx2.Response:
        request = self._http.build_request(method, path, json=body, timeout=timeout_s)
        with _network(timeout_s, failures):
            return self._http.send(request, stream=stream)


class HttpResponseStream:
    """The events of one ``generate_stream`` response."""

    def __init__(self, response: httpx2.Response, timeout_s: float, deadline_s: float, failures: Failures) -> None:
        self._response = response
        self._events = iter(httpx2.EventSource(response))
        self._timeout_s = timeout_s
        self._failures = failures
        self._closed = False
        self._expired = False
        # The HTTP library limits the wait for each read; only a timer can limit the whole.
        self._timer = threading.Timer(max(0.0, deadline_s - time.monotonic()), self._expire)
        self._timer.daemon = True
        self._timer.start()

    def __iter__(self) -> "HttpResponseStream":
        return self

    def __next__(self) -> Tensors:
        try:
            with _network(self._timeout_s, self._failures):
                event = next(self._events, None)
        except NeuroLatentError:
            if not (self._closed or self._expired):
                raise
            event = None
        if self._expired and event is None:
            raise self._failures.deadline(self._timeout_s)
        if self._closed or event is None:
            self._timer.cancel()
            raise StopIteration
        return self._tensors(event.data)

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

    def _tensors(self, data: str) -> Tensors:
        with _reading(self._failures):
            fields: dict[str, Any] = json.loads(data)
            if "error" in fields:
                raise self._failures.without_status(str(fields["error"]))
            return {
                name: value if isinstance(value, list) else [value]
                for name, value in fields.items()
                if name in protocol.STREAM_OUTPUT_TYPES
            }


@contextlib.contextmanager
def _network(timeout_s: float, failures: Failures) -> Iterator[None]:
    """Turn what the HTTP library raises into this package's errors."""
    try:
        yield
    except httpx2.TimeoutException as error:
        raise failures.deadline(timeout_s) from error
    except httpx2.SSEError as error:
        raise failures.server(str(error)) from error
    except httpx2.TransportError as error:
        raise failures.unavailable(str(error)) from error
    except httpx2.HTTPError as error:
        raise failures.server(str(error)) from error


@contextlib.contextmanager
def _reading(failures: Failures) -> Iterator[None]:
    """Turn an answer that is not the JSON of the contract into ServerError."""
    try:
        yield
    except NeuroLatentError:
        raise  # an InvalidRequestError is a ValueError too
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise failures.server(f"the answer is not what Triton writes ({type(error).__name__}: {error})") from error


def _reason(response: httpx2.Response) -> str:
    """The error text of a response: JSON, or one server-sent event with the same JSON, or what there is."""
    text = response.text.strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text.removeprefix("data:"))["error"])
    return text[:200] or response.reason_phrase


def _error_of(status: int, text: str, timeout_s: float, failures: Failures) -> NeuroLatentError:
    if status == 404 or names_unknown_model(text):
        return failures.model_not_found(text)
    if status in (400, 413, 422):
        return failures.invalid(text)
    if status in (408, 504):
        return failures.deadline(timeout_s)
    if status in (429, 502, 503):
        return failures.unavailable(text)
    return failures.server(f"{text} (HTTP {status})")
