"""A server in memory, for the tests of programs that use the client: no network, no model, the same results and errors.

>>> server = FakeServer({"Create a function": "In Python."})
>>> with server.client() as client:
...     client.optimize("Create a function").text
'Create a function\\n\\nIn Python.'
>>> server.requests[0].inputs["raw_prompt"]
'Create a function'
"""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Final, Literal

from neuro_latent_core import protocol
from neuro_latent_core.form import Form, join

from ._answers import SEQUENCE
from ._failures import Failures, names_unknown_model
from ._request import InferRequest, Scalar
from .async_client import AsyncClient
from .client import Client
from .errors import NeuroLatentError
from .results import GeneratedSequence, ServedModel
from .transports.base import A, Question, Tensors

FakeKind = Literal["invalid", "busy", "denied", "internal", "not found"]

MODEL_VERSION: Final = "fake-1"
_PIECE = re.compile(r"\S+\s*|\s+")


class Failure(Exception):
    """What a fake server says instead of an answer."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass
class FakeServer:
    """A server that answers by the contract.

    Attributes:
        answers: what the model writes for a raw prompt, "" for nothing; others get ``Say for whom it is.``, or
            ``Improved:`` and themselves where the form is ``rewrite``.
        form: what the model writes: a complement of the prompt, or the prompt anew.
        confidence: the score of every answer. Where a request's ``min_confidence`` is above it, the text is withheld.
        withheld: the raw prompts whose text is withheld, and the reason.
        adapters: the version of each adapter that a request may name; ``default`` answers those that name none.
        live: what its health says, as do ``ready`` and ``models``.
        delay_s: before an answer, and between the pieces of a stream.
        requests: what it was asked, in order.
        feedback: what it was told of answers, by idempotency key.
        cancelled: ids of the requests that were cancelled.
    """

    answers: Mapping[str, str] = field(default_factory=dict)
    form: Form = "complement"
    confidence: float = 0.9
    withheld: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=lambda: {"default": MODEL_VERSION})
    live: bool = True
    ready: bool = True
    models: list[str] = field(
        default_factory=lambda: [protocol.UNARY_MODEL, protocol.STREAM_MODEL, protocol.FEEDBACK_MODEL]
    )
    delay_s: float = 0.0
    requests: list[InferRequest] = field(default_factory=list)
    feedback: dict[str, Mapping[str, Scalar]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._failures: list[tuple[str, Failure, int]] = []
        self._changed = threading.Condition()

    def client(self, **settings: Any) -> Client:
        """A client of this server; ``settings`` are those of :class:`Client`."""
        return Client(transport=_FakeTransport(self, blocking=True), **settings)

    def async_client(self, **settings: Any) -> AsyncClient:
        """The same for :class:`AsyncClient`."""
        return AsyncClient(transport=_FakeTransport(self, blocking=False), **settings)

    def fail(self, kind: FakeKind, text: str, *, times: int = 1, after: int = 0, model: str = "") -> None:
        """Let the next ``times`` requests (to ``model``, if it is given) fail, streams after ``after`` pieces.

        >>> server = FakeServer()
        >>> server.fail("busy", "the queue is full")
        >>> with server.client() as client:
        ...     client.optimize("Create a function").text  # the client has asked again
        'Create a function\\n\\nSay for whom it is.'
        """
        self._failures += [(model, Failure(kind, text), after)] * times

    def receive(self, request: InferRequest) -> Iterator[Tensors]:
        """Record a request and begin to answer it. Raises :class:`Failure` here, or among the responses."""
        with self._changed:
            self.requests.append(request)
            planned = next((item for item in self._failures if item[0] in ("", request.model)), None)
            if planned:
                self._failures.remove(planned)
        _, failure, after = planned or ("", None, 0)
        if request.model not in self.models:
            raise Failure("not found", f"Request for unknown model: '{request.model}' is not found")
        if failure and not after:
            raise failure
        name = self._adapter(request)
        if name not in (*self.adapters, protocol.EVERY_ADAPTER):
            raise Failure("invalid", f"adapter {name!r} is not known here; known are {', '.join(self.adapters)}")

        def responses() -> Iterator[Tensors]:
            for count, response in enumerate(self.respond(request)):
                if failure and count == after:
                    raise failure
                yield response

        return responses()

    def respond(self, request: InferRequest) -> Iterator[Tensors]:
        """The responses to a request, one where its model is not a streaming one."""
        if request.model == protocol.FEEDBACK_MODEL:
            yield self._store(request.inputs)
            return
        n = int(request.inputs.get("num_return_sequences", 1))
        name = self._adapter(request)
        version = json.dumps(dict(self.adapters)) if name == protocol.EVERY_ADAPTER else self.adapters[name]
        answer = self._answer(request.inputs)
        if request.model == protocol.UNARY_MODEL:
            yield _outputs(answer, n, version)
            return
        raw_prompt = str(request.inputs[protocol.RAW_PROMPT])
        if self.form == "complement":
            pieces = [raw_prompt, answer.text.removeprefix(raw_prompt)]
        else:
            pieces = _PIECE.findall(answer.text)
        last = len(pieces) - 1
        for number, piece in enumerate(pieces):
            part = replace(answer, text=piece) if number == last else GeneratedSequence(piece, "", 0.0, 0, "")
            for index in range(n):
                yield {**_outputs(part, 1, version), "sequence_index": [index]}

    def _answer(self, inputs: Mapping[str, Scalar]) -> GeneratedSequence:
        raw_prompt = str(inputs[protocol.RAW_PROMPT])
        rewrites = self.form == "rewrite"
        written = self.answers.get(raw_prompt, f"Improved: {raw_prompt}" if rewrites else "Say for whom it is.")
        reason = self.withheld.get(raw_prompt, "")
        if not reason and rewrites and not written:
            reason = "blank"
        if not reason and float(inputs.get("min_confidence", 0)) > self.confidence:
            reason = "not sure enough"
        text, added, ended = raw_prompt, "", "withheld" if reason else "unchanged"
        if written and not reason:
            text, added = (written, "") if rewrites else (join(raw_prompt, written), written)
            ended = "stop"
        return GeneratedSequence(text, added, self.confidence, len(written.split()), ended, reason)

    def index(self) -> tuple[ServedModel, ...]:
        return tuple(ServedModel(name, "1", True, "") for name in self.models)

    def cancel(self, request_id: str) -> None:
        with self._changed:
            self.cancelled.add(request_id)
            self._changed.notify_all()

    def pause(self, request_id: str, seconds: float) -> bool:
        """Wait so long; True as soon as the request is cancelled."""
        with self._changed:
            return self._changed.wait_for(lambda: request_id in self.cancelled, seconds)

    @staticmethod
    def _adapter(request: InferRequest) -> str:
        return str(request.inputs.get(protocol.ADAPTER) or "default")

    def _store(self, inputs: Mapping[str, Scalar]) -> Tensors:
        if not inputs["request_id"]:
            raise Failure("invalid", "request_id is empty")
        key = str(inputs.get("idempotency_key") or inputs["request_id"])
        with self._changed:
            created = key not in self.feedback
            self.feedback.setdefault(key, inputs)
        number = list(self.feedback).index(key) + 1
        return {"feedback_id": [f"feedback-{number}"], "created": [created], "idempotency_key": [key]}


def _outputs(answer: GeneratedSequence, n: int, version: str) -> dict[str, list[Scalar]]:
    """``n`` times the same answer."""
    outputs: dict[str, list[Scalar]] = {
        name: [value] * n for name, value in zip(SEQUENCE, astuple(answer), strict=True)
    }
    once: dict[str, list[Scalar]] = {"truncated": [False], "cached": [False]}
    return {**outputs, **once, "model_version": [version], "adapter_version": [version]}


@contextmanager
def _errors(failures: Failures) -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        text = str(failure)
        if names_unknown_model(text):
            raise failures.model_not_found(text) from None
        errors: dict[str, Callable[[str], NeuroLatentError]] = {
            "invalid": failures.invalid,
            "busy": failures.unavailable,
            "denied": failures.denied,
        }
        raise errors.get(failure.kind, failures.server)(text) from None


class _FakeTransport:
    """A transport to a :class:`FakeServer`; in an event loop a thread does the waiting."""

    name = "fake"

    def __init__(self, server: FakeServer, *, blocking: bool) -> None:
        self._server = server
        self._blocking = blocking

    async def infer(self, request: InferRequest) -> Tensors:
        return await anext(_FakeStream(self._server, request, self._server.delay_s, self._blocking))

    async def stream(self, request: InferRequest) -> "_FakeStream":
        return _FakeStream(self._server, request, 0.0, self._blocking)

    async def cancel(self, request_id: str) -> None:
        self._server.cancel(request_id)

    async def ask(self, question: Question[A], timeout_s: float) -> A:
        server = self._server
        answers: dict[str, Any] = {
            "live": server.live,
            "ready": server.ready,
            "model_ready": question.model in server.models,
            "model_versions": ["1"],
            "index": server.index(),
            "load": None,
        }
        answer: A = answers[question.about]
        return answer

    async def close(self) -> None:
        """There is no connection."""


class _FakeStream:
    """The responses to one request; ``delay_s`` goes by before the first."""

    def __init__(self, server: FakeServer, request: InferRequest, delay_s: float, blocking: bool) -> None:
        self._server = server
        self._request = request
        self._delay_s = delay_s
        self._blocking = blocking
        self._failures = Failures.of("the fake server", request)
        with _errors(self._failures):
            self._responses = server.receive(request)

    async def __anext__(self) -> Tensors:
        left_s = self._request.remaining_s
        wait = self._request.request_id, min(self._delay_s, left_s)
        pause = self._server.pause
        if pause(*wait) if self._blocking else await asyncio.to_thread(pause, *wait):
            raise StopAsyncIteration
        if self._delay_s > left_s:
            raise self._failures.deadline()
        self._delay_s = self._server.delay_s
        with _errors(self._failures):
            for response in self._responses:
                return response
        raise StopAsyncIteration

    async def close(self) -> None:
        """A stream that is left early was cancelled before."""
