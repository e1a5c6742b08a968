"""The client: one object, a server's address, three questions."""

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Unpack

from . import protocol
from ._answers import MODEL_VERSION, first, sequences_of
from ._endpoint import DEFAULT_URL, parse_url
from ._failures import Failures
from ._request import InferRequest, Scalar, check_timeout, make_inputs
from ._stream import OptimizationStream, milliseconds_since
from ._transport import connect
from .errors import DeadlineError, NeuroLatentError
from .options import GenerationOptions
from .results import GeneratedSequence, Health, Optimization

_HEALTH_TIMEOUT_S = 5.0


class Client:
    """A client of one server. Threads may share it. It connects on first use; use it as a context manager.

    Args:
        url: ``grpc://host:port`` or ``http://host:port`` (``grpcs`` and ``https`` for TLS).
        timeout: seconds for a whole call, unless the call says otherwise. Over HTTP, connecting and the answer each
            have this time.
        headers: sent with every request, as HTTP headers or gRPC metadata.

    Raises:
        InvalidRequestError: the URL or the timeout cannot be used.

    >>> with Client("grpc://127.0.0.1:8001") as client:  # doctest: +SKIP
    ...     print(client.optimize("Create a function").text)
    """

    def __init__(
        self, url: str = DEFAULT_URL, *, timeout: float = 30.0, headers: Mapping[str, str] | None = None
    ) -> None:
        self._timeout_s = check_timeout(timeout)
        self._url = url
        self._transport = connect(parse_url(url), headers or {})
        self._closed = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Open streams end with an error."""
        self._closed = True
        self._transport.close()

    def optimize(
        self, raw_prompt: str, *, timeout: float | None = None, **options: Unpack[GenerationOptions]
    ) -> Optimization:
        """Ask for a better prompt and wait for all of it.

        Args:
            raw_prompt: the prompt to improve.
            options: how to write; see :class:`GenerationOptions`.
            timeout: seconds after which the client gives up; None is the client's.

        Raises:
            InvalidRequestError: the server, or the wire, refuses a value; the text names it.
            ServerUnavailableError: no server there, or it is too busy.
            DeadlineError: no whole answer within ``timeout`` seconds.
            ModelNotFoundError: the server does not serve the model.
            ServerError: the server failed.

        >>> client.optimize("Create a function", max_length=64, seed=7).text  # doctest: +SKIP
        'Write a Python function that ...'
        """
        start_s = time.perf_counter()
        request = self._request(protocol.UNARY_MODEL, make_inputs(raw_prompt, options), timeout)
        with self._cancelling(request):
            tensors = self._transport.infer(request)
        failures = self._failures(request)
        return self._optimization(
            request,
            start_s,
            sequences_of(tensors, failures),
            first(tensors, "truncated", bool, failures),
            first(tensors, MODEL_VERSION, str, failures),
        )

    def stream(
        self, raw_prompt: str, *, timeout: float | None = None, **options: Unpack[GenerationOptions]
    ) -> OptimizationStream:
        """Ask for a better prompt and get it piece by piece. Arguments and errors are those of :meth:`optimize`.

        The request is sent at once. Errors come from this call or from the iteration, so keep both in one ``try``.

        >>> with client.stream("Create a function") as stream:  # doctest: +SKIP
        ...     for piece in stream:
        ...         print(piece.text, end="", flush=True)
        """
        start_s = time.perf_counter()
        request = self._request(protocol.STREAM_MODEL, make_inputs(raw_prompt, options), timeout)
        finish = partial(self._optimization, request, start_s)
        cancel = partial(self._transport.cancel, request.request_id)
        with self._cancelling(request):  # over HTTP the server answers nothing before the first piece
            responses = self._transport.stream(request)
        return OptimizationStream(responses, finish, cancel, self._failures(request))

    def health(self, *, timeout: float = _HEALTH_TIMEOUT_S) -> Health:
        """Whether the server and both models can answer. A server that cannot be reached is ``live=False``, no error.

        Args:
            timeout: seconds for each of the few small questions asked.

        >>> client.health().ready  # doctest: +SKIP
        True
        """
        self._check_open()
        check_timeout(timeout)
        start_s = time.perf_counter()
        live, model_version = False, None
        try:
            live = self._transport.server_live(timeout)
            problem = self._problem(live, timeout)
            if not problem:
                versions = self._transport.model_versions(protocol.UNARY_MODEL, timeout)
                model_version = versions[-1] if versions else None
        except NeuroLatentError as error:
            problem = str(error)
        return Health(self._url, live, live and not problem, model_version, problem, milliseconds_since(start_s))

    def _problem(self, live: bool, timeout_s: float) -> str:
        if not live:
            return f"{self._url} answers, but not as a live Triton server"
        for model in (protocol.UNARY_MODEL, protocol.STREAM_MODEL):
            if not self._transport.model_ready(model, timeout_s):
                return f"model {model} is not ready"
        if not self._transport.server_ready(timeout_s):
            return "the server is not ready"
        return ""

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    def _request(self, model: str, inputs: Mapping[str, Scalar], timeout: float | None) -> InferRequest:
        self._check_open()
        timeout_s = self._timeout_s if timeout is None else check_timeout(timeout)
        return InferRequest(model, uuid.uuid4().hex, inputs, timeout_s)

    @contextmanager
    def _cancelling(self, request: InferRequest) -> Iterator[None]:
        """Cancel the request on the server when the caller gives up: a deadline, or Ctrl-C."""
        try:
            yield
        except (DeadlineError, KeyboardInterrupt):
            self._transport.cancel(request.request_id)
            raise

    def _failures(self, request: InferRequest) -> Failures:
        return Failures(self._url, request.model, request.request_id)

    def _optimization(
        self,
        request: InferRequest,
        start_s: float,
        sequences: tuple[GeneratedSequence, ...],
        truncated: bool,
        model_version: str,
    ) -> Optimization:
        return Optimization(
            raw_prompt=str(request.inputs[protocol.RAW_PROMPT]),
            sequences=sequences,
            truncated=truncated,
            model_version=model_version,
            request_id=request.request_id,
            elapsed_ms=milliseconds_since(start_s),
            transport=self._transport.name,
        )
