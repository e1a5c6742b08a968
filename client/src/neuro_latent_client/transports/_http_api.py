"""What an HTTP server is asked, and how its answers are read: what Triton's API and the gateway's share."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import httpx2

from .._failures import Failures, names_unknown_model
from .._request import InferRequest
from ..errors import NeuroLatentError
from .base import A, Tensors

Questions = Mapping[str, tuple[str, str, Callable[[httpx2.Response, Failures], Any]]]
"""For each question about the server: the method, the path with the model's place, and how the answer is read."""


class Api(Protocol):
    """One way to ask over HTTP.

    Attributes:
        name: of the transport, as answers bear it.
    """

    name: str
    questions: Questions

    def message(self, request: InferRequest, *, stream: bool) -> tuple[str, str, Any]:
        """Method, path and JSON of a request."""

    def tensors(self, response: httpx2.Response, failures: Failures) -> Tensors:
        """A whole answer. Raises the error in its place."""

    def responses(self, event: httpx2.ServerSentEvent, failures: Failures) -> list[Tensors]:
        """The responses of a stream that an event brings. Raises the error in their place."""


def is_ok(response: httpx2.Response, failures: Failures) -> bool:
    """Whether the answer is yes."""
    return response.status_code == 200


def check_ok(response: httpx2.Response, failures: Failures) -> None:
    """Raise what an answer that is an error means."""
    if not response.is_success:
        raise error_of(response, failures)


def json_reader(read: Callable[[Any], A]) -> Callable[[httpx2.Response, Failures], A]:
    """What reads a whole answer, by ``read`` of its JSON."""

    def reader(response: httpx2.Response, failures: Failures) -> A:
        check_ok(response, failures)
        with reading(failures):
            return read(response.json())

    return reader


@contextlib.contextmanager
def reading(failures: Failures) -> Iterator[None]:
    """Turn an answer that is not the JSON of the contract into ServerError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise failures.server(f"the answer is outside the contract ({type(error).__name__}: {error})") from error


def error_of(response: httpx2.Response, failures: Failures) -> NeuroLatentError:
    """What an answer means that is an error."""
    wait = response.headers.get("retry-after", "")
    retry_after_s = float(wait) if wait.isdecimal() else None
    return error_of_status(
        response.status_code, reason(response), failures, retry_after_s, problem=is_problem(response)
    )


def is_problem(response: httpx2.Response) -> bool:
    """Whether a gateway has written the error (RFC 9457)."""
    return str(response.headers.get("content-type", "")).startswith("application/problem+json")


def error_of_status(
    status: int, text: str, failures: Failures, retry_after_s: float | None = None, *, problem: bool
) -> NeuroLatentError:
    """What a status of HTTP and the text beside it mean; ``problem``: as a gateway's own."""
    if status == 404 or names_unknown_model(text):
        return failures.model_not_found(text)
    if status in (401, 403):
        return failures.denied(text)
    if status in (400, 413, 422):
        return failures.invalid(text)
    if status in (408, 504):
        return failures.deadline()
    if status in (429, 503) or (status == 502 and not problem):  # of a proxy that finds no server
        return failures.unavailable(text, retry_after_s)
    return failures.server(f"{text} (HTTP {status})")


def reason(response: httpx2.Response) -> str:
    """The error text of a response: Triton's JSON, or one server-sent event with it, or a problem's, or what there
    is."""
    text = response.text.strip()
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        told = json.loads(text.removeprefix("data:"))
        return str(told.get("error") or told["detail"])
    return text[:200] or response.reason_phrase
