"""What both clients share: settings, requests made from arguments, results made from answers.

All that waits is a coroutine here; see :mod:`neuro_latent_client._coroutines`.
"""

import asyncio
import dataclasses
import uuid
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, ClassVar, Self

from neuro_latent_core import protocol

from ._answers import MODEL_VERSION, adapters_of, answer_id, first, sequences_of
from ._endpoint import default_url, make_settings
from ._failures import Failures
from ._request import InferRequest, Scalar, check_timeout, make_probe, trace_headers
from ._retry import retried
from .errors import DeadlineError
from .results import Feedback, GeneratedSequence, Optimization, Piece, ServedAdapter
from .tls import TlsConfig
from .transports import connect
from .transports.base import A, Question, ResponseStream, Tensors, Transport


class BaseClient:
    """A client over blocking transports, or over those of an event loop."""

    _blocking: ClassVar[bool]

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 3,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = None,
        tls: TlsConfig | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._url = default_url() if url is None else url
        self._settings = make_settings(self._url, timeout, retries, headers or {}, api_key, tls)
        self._given_transport = transport
        self._transport = self._connect()
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

    def _connect(self) -> Transport:
        return self._given_transport or connect(self._settings, blocking=self._blocking)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def _request(
        self, model: str, inputs: Mapping[str, Scalar], timeout: float | None, traceparent: str | None
    ) -> InferRequest:
        self._check_open()
        timeout_s = self._settings.timeout_s if timeout is None else check_timeout(timeout)
        headers = {**self._settings.headers, **trace_headers(traceparent)}
        self._latest_id = uuid.uuid4().hex
        return InferRequest(model, self._latest_id, inputs, timeout_s, headers)

    async def _run(self, coroutine: Coroutine[Any, Any, A]) -> A:
        """Await a coroutine to its end, whatever happens to the caller meanwhile."""
        return await coroutine

    async def _ask(self, question: Question[A], timeout: float) -> A:
        self._check_open()
        return await self._transport.ask(question, check_timeout(timeout))

    async def _infer(self, request: InferRequest, retries: int | None = None) -> Tensors:
        """Ask, and cancel the request on the server when the caller gives up: a deadline, Ctrl-C, a cancelled task."""

        async def attempt(now: InferRequest) -> Tensors:
            tensors = await self._transport.infer(now)
            # Triton 24.10 gave feedback the answer of another one when the feedback's process had stood still for two
            # seconds. Repositories that were exported before do not say whose an answer is.
            key = now.inputs.get("idempotency_key") or now.inputs.get("request_id")
            if now.model == protocol.FEEDBACK_MODEL and tensors.get("idempotency_key", [key])[0] != key:
                raise Failures.of(self._url, now).unavailable("it answered another feedback")
            return tensors

        if retries is None:
            retries = self._settings.retries
        try:
            return await retried(attempt, request, retries, blocking=self._blocking)
        except (DeadlineError, KeyboardInterrupt, asyncio.CancelledError):
            await self._run(self._transport.cancel(request.request_id))
            raise

    async def _optimize(self, request: InferRequest, retries: int | None = None) -> Optimization:
        tensors = await self._infer(request, retries)
        return self._result(request, tensors, sequences_of(tensors, Failures.of(self._url, request)))

    async def _adapters(self, timeout_s: float) -> tuple[ServedAdapter, ...]:
        inputs = make_probe(check_timeout(timeout_s), adapter=protocol.EVERY_ADAPTER)
        request = self._request(protocol.UNARY_MODEL, inputs, timeout_s, None)
        return adapters_of(await self._infer(request), Failures.of(self._url, request))

    async def _feedback(self, request: InferRequest) -> Feedback:
        tensors = await self._infer(request)
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
        tensors: Tensors,
        sequences: tuple[GeneratedSequence, ...],
        first_piece_ms: float | None = None,
    ) -> Optimization:
        failures = Failures.of(self._url, request)
        asked_for_deadline = bool(request.inputs.get("deadline_ms"))
        if not asked_for_deadline and any(sequence.finish_reason == "deadline" for sequence in sequences):
            raise failures.deadline()  # the server was a moment faster than the client's clock
        return Optimization(
            raw_prompt=str(request.inputs[protocol.RAW_PROMPT]),
            sequences=sequences,
            truncated=first(tensors, "truncated", bool, failures),
            model_version=first(tensors, MODEL_VERSION, str, failures),
            request_id=answer_id(tensors, request),
            elapsed_ms=request.elapsed_ms,
            transport=self._transport.name,
            first_piece_ms=first_piece_ms,
            cached="cached" in tensors and first(tensors, "cached", bool, failures),  # older servers do not say
        )


class Stream:
    """What both kinds of stream share: how it is asked for, the text so far, and the answer."""

    def __init__(self, client: BaseClient, request: InferRequest, retries: int | None = None) -> None:
        self._client = client
        self._transport = client._transport
        self._request = request
        self._retries = client._settings.retries if retries is None else retries
        self._responses: ResponseStream | None = None
        self._tried = False  # the responses were read already
        self._answered = False  # something has come, so nothing is asked again
        self._over = False
        self._sequences: dict[int, GeneratedSequence] = {}
        self._newest: Tensors = {}
        self._first_piece_ms: float | None = None
        self._result: Optimization | None = None

    @property
    def request_id(self) -> str:
        """The id that the request carries."""
        return self._request.request_id

    @property
    def result(self) -> Optimization:
        """The whole answer, once the iteration has ended by itself.

        Raises:
            RuntimeError: it has not, or it was closed or failed before its end.
        """
        if self._result is None:
            raise RuntimeError("the stream has no result: iterate it to its end first")
        return self._result

    async def _next_piece(self) -> Piece | None:
        """The next piece of text, None at the end. A stream that fails is closed."""
        while not self._over:
            try:
                piece = self._take(await self._next())
            except BaseException:
                await self._stop()
                raise
            if piece:
                return piece
        return None

    async def _stop(self) -> None:
        left_early = not self._over
        self._over = True
        await self._release(left_early)

    async def _release(self, left_early: bool) -> None:
        if left_early:
            await self._transport.cancel(self.request_id)
        if self._responses is not None:
            await self._responses.close()

    async def _next(self) -> Tensors | None:
        if self._answered and self._responses is not None:
            return await anext(self._responses, None)
        return await retried(self._first, self._request, self._retries, blocking=self._client._blocking)

    async def _open(self, request: InferRequest) -> None:
        self._responses = await self._transport.stream(request)

    async def _first(self, request: InferRequest) -> Tensors | None:
        """The first response; the request is sent again where the last one has failed."""
        if self._over:  # closed meanwhile
            return None
        if self._tried and self._responses is not None:
            await self._responses.close()
        if self._tried or self._responses is None:
            await self._open(request)
        self._tried = True
        assert self._responses
        return await anext(self._responses, None)

    def _take(self, tensors: Tensors | None) -> Piece | None:
        """What a response brings to show, if anything. None ends the stream."""
        if self._over:  # closed meanwhile
            return None
        self._answered = True
        failures = Failures.of(self._client._url, self._request)
        if tensors is None:
            self._end(failures)
            return None
        part = sequences_of(tensors, failures)[0]
        index = first(tensors, "sequence_index", int, failures)
        before = self._sequences.get(index)
        self._sequences[index] = part
        if before:
            self._sequences[index] = dataclasses.replace(
                part, text=before.text + part.text, added=part.added or before.added
            )
        truncated = first(tensors, "truncated", bool, failures) or any(self._newest.get("truncated", ()))
        self._newest = {**tensors, "truncated": [truncated]}
        if not part.text:
            return None
        if self._first_piece_ms is None:
            self._first_piece_ms = self._request.elapsed_ms
        return Piece(part.text, index)

    def _end(self, failures: Failures) -> None:
        sequences = tuple(sequence for _, sequence in sorted(self._sequences.items()))
        if not sequences or not all(sequence.finish_reason for sequence in sequences):
            raise failures.server("the stream ended before the text was whole")
        self._result = self._client._result(self._request, self._newest, sequences, self._first_piece_ms)
        self._over = True
