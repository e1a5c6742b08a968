"""What both clients share: settings, requests made from arguments, results made from answers."""

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any, Generic, Self, TypeVar

from neuro_latent_core import protocol

from ._answers import MODEL_VERSION, first, sequences_of
from ._endpoint import DEFAULT_URL
from ._failures import Failures
from ._request import InferRequest, Scalar, check_timeout, make_feedback_inputs, make_inputs, trace_headers
from ._settings import Settings, make_settings
from ._stream import StreamPlan
from ._trace import current_traceparent
from ._transport import AsyncTransport, Tensors, Transport
from .options import FeedbackDetails, GenerationOptions
from .results import Feedback, GeneratedSequence, Optimization
from .tls import TlsConfig

T = TypeVar("T", Transport, AsyncTransport)


class BaseClient(Generic[T]):
    """A client over a transport of type ``T``."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float = 30.0,
        retries: int = 3,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = None,
        tls: TlsConfig | None = None,
        transport: T | None = None,
    ) -> None:
        self._settings = make_settings(url, timeout, retries, headers or {}, api_key, tls)
        self._given_transport: T | None = transport
        self._transport: T = self._connect(self._settings) if transport is None else transport
        self._url = url
        self._closed = False
        self._latest_id = ""

    def __copy__(self) -> Self:
        """Another client with the same settings and connections of its own."""
        return self._again(headers=self._settings.headers)()

    def __deepcopy__(self, memo: object) -> Self:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle: settings without the headers, for the API key is among them and must not get into a file."""
        return self._again(), ()

    def _again(self, **others: Any) -> "partial[Self]":
        """What makes a client with the settings of this one, its headers left out, and with ``others``."""
        settings = self._settings
        return partial(
            type(self),
            self._url,
            timeout=settings.timeout_s,
            retries=settings.retries,
            tls=settings.tls,
            transport=self._given_transport,
            **others,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings})"

    def _connect(self, settings: Settings) -> T:
        raise NotImplementedError

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def _request(
        self, model: str, inputs: Mapping[str, Scalar], timeout: float | None, traceparent: str | None
    ) -> InferRequest:
        self._check_open()
        timeout_s = self._settings.timeout_s if timeout is None else check_timeout(timeout)
        headers = {**self._settings.headers, **trace_headers(traceparent or current_traceparent())}
        self._latest_id = uuid.uuid4().hex
        return InferRequest(model, self._latest_id, inputs, timeout_s, headers)

    def _optimize_request(
        self, raw_prompt: str, options: GenerationOptions, timeout: float | None, traceparent: str | None
    ) -> InferRequest:
        return self._request(protocol.UNARY_MODEL, make_inputs(raw_prompt, options), timeout, traceparent)

    def _feedback_request(
        self,
        answer: Optimization | str,
        rating: int,
        details: FeedbackDetails,
        timeout: float | None,
        traceparent: str | None,
    ) -> InferRequest:
        inputs = make_feedback_inputs(answer, rating, details)
        return self._request(protocol.FEEDBACK_MODEL, inputs, timeout, traceparent)

    def _stream_plan(
        self,
        raw_prompt: str,
        options: GenerationOptions,
        timeout: float | None,
        traceparent: str | None,
        retries: int | None = None,
    ) -> StreamPlan:
        request = self._request(protocol.STREAM_MODEL, make_inputs(raw_prompt, options), timeout, traceparent)
        failures = Failures.of(self._url, request)
        return StreamPlan(
            request, self._settings.retries if retries is None else retries, failures, partial(self._result, request)
        )

    def _optimization(self, request: InferRequest, tensors: Tensors) -> Optimization:
        failures = Failures.of(self._url, request)
        sequences = sequences_of(tensors, failures)
        truncated = first(tensors, "truncated", bool, failures)
        return self._result(request, sequences, truncated, first(tensors, MODEL_VERSION, str, failures), None)

    def _own(self, request: InferRequest, tensors: Tensors) -> Tensors:
        """The answer, where it is this request's.

        Triton 24.10 gave feedback the answer of another one when the feedback's process had stood still for two
        seconds. Repositories that were exported before do not say whose an answer is.

        Raises:
            ServerUnavailableError: it is another one's; feedback may be sent again.
        """
        key = request.inputs.get("idempotency_key") or request.inputs.get("request_id")
        if request.model == protocol.FEEDBACK_MODEL and tensors.get("idempotency_key", [key])[0] != key:
            raise Failures.of(self._url, request).unavailable("it answered another feedback")
        return tensors

    def _feedback(self, request: InferRequest, tensors: Tensors) -> Feedback:
        failures = Failures.of(self._url, request)
        return Feedback(
            feedback_id=first(tensors, "feedback_id", str, failures),
            created=first(tensors, "created", bool, failures),
            request_id=str(request.inputs["request_id"]),
            elapsed_ms=request.elapsed_ms,
        )

    def _result(
        self,
        request: InferRequest,
        sequences: tuple[GeneratedSequence, ...],
        truncated: bool,
        model_version: str,
        first_piece_ms: float | None,
    ) -> Optimization:
        asked_for_deadline = bool(request.inputs.get("deadline_ms"))
        if not asked_for_deadline and any(sequence.finish_reason == "deadline" for sequence in sequences):
            raise Failures.of(self._url, request).deadline()  # the server was a moment faster than the client's clock
        return Optimization(
            raw_prompt=str(request.inputs[protocol.RAW_PROMPT]),
            sequences=sequences,
            truncated=truncated,
            model_version=model_version,
            request_id=request.request_id,
            elapsed_ms=request.elapsed_ms,
            transport=self._transport.name,
            first_piece_ms=first_piece_ms,
        )
