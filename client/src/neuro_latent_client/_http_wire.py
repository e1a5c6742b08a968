"""HTTP's requests, answers and errors, for both of its transports.

KServe's JSON for one answer, Triton's ``generate_stream`` (server-sent events) for a stream.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic

import httpx2

from neuro_latent_core import protocol

from ._failures import Failures, names_unknown_model
from ._request import CANCEL_TIMEOUT_S, WIRE_TYPES, InferRequest
from ._settings import Settings
from ._transport import A, Question, Tensors
from .errors import NeuroLatentError
from .results import ServedModel


def client_arguments(settings: Settings) -> dict[str, Any]:
    """For ``httpx2.Client`` and ``httpx2.AsyncClient``: a pool without a limit, since every open stream holds one."""
    endpoint = settings.endpoint
    return {
        "base_url": f"{endpoint.scheme}://{endpoint.netloc}{endpoint.path}",
        "headers": dict(settings.headers),
        "limits": httpx2.Limits(max_connections=None),
        "trust_env": not endpoint.is_loopback,  # a proxy from the environment cannot reach this machine's loopback
        "verify": settings.tls.context() if settings.tls else True,
    }


@dataclass(frozen=True, slots=True)
class Exchange(Generic[A]):
    """One HTTP request, and how its whole answer is read."""

    method: str
    path: str
    timeout_s: float
    failures: Failures
    read: Callable[[httpx2.Response, Failures], A]
    body: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self, http: httpx2.Client | httpx2.AsyncClient) -> httpx2.Request:
        return http.build_request(
            self.method, self.path, json=self.body, headers=dict(self.headers), timeout=self.timeout_s
        )

    def answer(self, response: httpx2.Response) -> A:
        return self.read(response, self.failures)


def infer_exchange(address: str, request: InferRequest) -> Exchange[Tensors]:
    inputs = [
        {"name": name, "datatype": WIRE_TYPES[name], "shape": [1, 1], "data": [value]}
        for name, value in request.inputs.items()
    ]
    body = {"id": request.request_id, "inputs": inputs}
    path = f"/v2/models/{request.model}/infer"
    failures = Failures.of(address, request)
    return Exchange("POST", path, request.remaining_s, failures, _read_tensors, body, request.headers)


def stream_exchange(address: str, request: InferRequest) -> Exchange[NeuroLatentError]:
    """Its answer, read whole, is the error that stands in place of a stream."""
    body = {"id": request.request_id, **request.inputs}
    path = f"/v2/models/{request.model}/generate_stream"
    failures = Failures.of(address, request)
    return Exchange("POST", path, request.remaining_s, failures, _stream_error, body, request.headers)


def cancel_exchange(address: str, request_id: str) -> Exchange[None]:
    path = f"/v2/models/{protocol.CANCEL_MODEL}/generate_stream"
    failures = Failures(address, CANCEL_TIMEOUT_S, protocol.CANCEL_MODEL)
    body = {protocol.CANCEL_INPUT: request_id}
    return Exchange("POST", path, CANCEL_TIMEOUT_S, failures, lambda response, failures: None, body)


def question_exchange(address: str, question: Question[A], timeout_s: float) -> Exchange[A]:
    method, path, read = _QUESTIONS[question.about]
    failures = Failures(address, timeout_s, question.model)
    path = path.format(question.model)
    return Exchange(method, path, timeout_s, failures, read, None if method == "GET" else {})


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


def read_event(data: str, failures: Failures) -> Tensors:
    """One response of a stream, or the error in its place."""
    with _reading(failures):
        fields: dict[str, Any] = json.loads(data)
        if "error" in fields:
            raise failures.without_status(str(fields["error"]))
        return {
            name: value if isinstance(value, list) else [value]
            for name, value in fields.items()
            if name in protocol.STREAM_OUTPUT_TYPES
        }


def _is_ok(response: httpx2.Response, failures: Failures) -> bool:
    return response.status_code == 200


def _read_tensors(response: httpx2.Response, failures: Failures) -> Tensors:
    with _reading(failures):
        return {output["name"]: output["data"] for output in _json(response, failures)["outputs"]}


def _read_versions(response: httpx2.Response, failures: Failures) -> list[str]:
    with _reading(failures):
        return [str(version) for version in _json(response, failures)["versions"]]


def _read_load(response: httpx2.Response, failures: Failures) -> None:
    if response.status_code != 200:
        raise _error_of(response, failures)


def _read_index(response: httpx2.Response, failures: Failures) -> tuple[ServedModel, ...]:
    with _reading(failures):
        return tuple(
            ServedModel(model["name"], model.get("version", ""), model.get("state") == "READY", model.get("reason", ""))
            for model in _json(response, failures)
        )


_QUESTIONS: Final[dict[str, tuple[str, str, Callable[[httpx2.Response, Failures], Any]]]] = {
    "live": ("GET", "/v2/health/live", _is_ok),
    "ready": ("GET", "/v2/health/ready", _is_ok),
    "model_ready": ("GET", "/v2/models/{}/ready", _is_ok),
    "model_versions": ("GET", "/v2/models/{}", _read_versions),
    "index": ("POST", "/v2/repository/index", _read_index),
    "load": ("POST", "/v2/repository/models/{}/load", _read_load),
}
"""For each question about the server: the method, the path with the model's place, and how the answer is read."""


def _stream_error(response: httpx2.Response, failures: Failures) -> NeuroLatentError:
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        return failures.without_status(_reason(response))
    return _error_of(response, failures)


def _json(response: httpx2.Response, failures: Failures) -> Any:
    if response.status_code != 200:
        raise _error_of(response, failures)
    return response.json()


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
