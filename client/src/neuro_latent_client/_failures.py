"""From what the server or the network said to an error that says what to do. Shared by both transports."""

import math
import re
from dataclasses import dataclass

from neuro_latent_core import protocol

from ._request import InferRequest
from .errors import (
    AccessDeniedError,
    DeadlineError,
    InvalidRequestError,
    ModelNotFoundError,
    NeuroLatentError,
    ServerError,
    ServerUnavailableError,
)

_ENSEMBLE_PREFIX = re.compile(r"^in ensemble '[^']*', ")
_BUSY = re.compile(r"queue|unavailable|too busy|stopp", re.IGNORECASE)
_NAMES_AN_INPUT = re.compile(rf"\b({'|'.join(protocol.INPUT_TYPES)})\b")


@dataclass(frozen=True, slots=True)
class Failures:
    """Makes the errors of one request to one server.

    Attributes:
        address: the server, as the caller wrote it.
        model: the model asked for, or "" for requests about the server itself.
        timeout_s: the time for the whole call, in seconds.
    """

    address: str
    timeout_s: float
    model: str = ""
    request_id: str | None = None

    @classmethod
    def of(cls, address: str, request: InferRequest) -> "Failures":
        return cls(address, request.timeout_s, request.model, request.request_id)

    def invalid(self, text: str) -> InvalidRequestError:
        return InvalidRequestError(_clean(text), request_id=self.request_id)

    def unavailable(self, text: str, retry_after_s: float | None = None) -> ServerUnavailableError:
        when = "in a moment" if retry_after_s is None else f"in {retry_after_s:g} s"
        message = (
            f"{self.address} is unavailable: {_clean(text)}. Check the address; 'neuro-latent serve' starts a server; "
            f"if it is only busy, try again {when}"
        )
        return ServerUnavailableError(message, request_id=self.request_id, retry_after_s=retry_after_s)

    def unreachable(self, seconds: float) -> ServerUnavailableError:
        seconds = min(seconds, self.timeout_s)
        message = f"{self.address} takes no connection within {seconds:g} s. Check the address and the network"
        return ServerUnavailableError(message, request_id=self.request_id, retry_after_s=math.inf)

    def other_protocol(self, found: str, wanted: str) -> ModelNotFoundError:
        message = (
            f"{self.address} does not speak {wanted}; it seems to be {found}. Triton's gRPC is grpc://HOST:8001, "
            "its HTTP http://HOST:8000, a gateway http://HOST:8080, unless it was started with other ports"
        )
        return ModelNotFoundError(message, request_id=self.request_id)

    def denied(self, text: str) -> AccessDeniedError:
        message = f"{self.address} refuses this client: {_clean(text)}. Check api_key, headers and tls"
        return AccessDeniedError(message, request_id=self.request_id)

    def deadline(self) -> DeadlineError:
        message = (
            f"{self.address} gave no whole answer within {self.timeout_s:g} s. Raise timeout, lower max_length, "
            "or set deadline_ms, with which the server answers in time with what it has"
        )
        return DeadlineError(message, request_id=self.request_id)

    def model_not_found(self, text: str) -> ModelNotFoundError:
        message = (
            f"{self.address} does not serve {self.model or 'this'}: {_clean(text)}. "
            "Start it on a repository written by 'neuro-latent export'"
        )
        return ModelNotFoundError(message, request_id=self.request_id)

    def server(self, text: str) -> ServerError:
        return ServerError(f"{self.address} failed: {_clean(text)}. See the server's log", request_id=self.request_id)

    def without_status(self, text: str) -> NeuroLatentError:
        """An error that came inside a stream, where Triton gives no status that can be relied on: go by its text.

        Triton 24.10 answers any error before the first piece of ``generate_stream`` with 400, a full queue and an
        internal failure included, and any later one inside a 200. In a gRPC stream an error is a text without a status.
        """
        if names_unknown_model(text):
            return self.model_not_found(text)
        if _NAMES_AN_INPUT.search(text):
            return self.invalid(text)
        if _BUSY.search(text):
            return self.unavailable(text)
        return self.server(text)


def names_unknown_model(text: str) -> bool:
    """Whether this is Triton's text for a model it lacks, which comes with several statuses."""
    return "unknown model" in text.lower()


def _clean(text: str) -> str:
    return _ENSEMBLE_PREFIX.sub("", text.strip()).rstrip(".") or "no reason given"
