"""The client: one object, a server's address, a handful of questions."""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Literal, Unpack

from neuro_latent_core import protocol

from ._base import BaseClient, Stream
from ._coroutines import run
from ._health import HEALTH_TIMEOUT_S, check_health
from ._request import check_count, make_feedback_inputs, make_inputs
from ._retry import retried
from .errors import DeadlineError, NeuroLatentError
from .options import FeedbackDetails, GenerationOptions
from .results import Feedback, Health, Optimization, Piece, Progress, ServedAdapter, ServedModel
from .transports.base import INDEX, LOAD_ADAPTERS, LOAD_TIMEOUT_S


class OptimizationStream(Stream):
    """An iterator of :class:`Piece`, and a context manager that cancels what is left when it is left early.

    Iterating raises the errors of :meth:`Client.optimize`. One thread iterates; any thread may :meth:`close`.

    >>> with client.stream("Create a function") as stream:
    ...     for piece in stream:
    ...         print(piece.text, end="", flush=True)
    Create a function
    <BLANKLINE>
    In Python.
    >>> stream.result.finish_reason
    'stop'
    """

    def __iter__(self) -> "OptimizationStream":
        return self

    def __next__(self) -> Piece:
        piece = run(self._next_piece())
        if piece is None:
            raise StopIteration
        return piece

    def __enter__(self) -> "OptimizationStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop. What the server has not written yet is cancelled there; a stream that has ended is left as it is."""
        run(self._stop())

    def _send(self) -> None:
        try:  # over HTTP the server answers nothing before the first piece
            run(retried(self._open, self._request, self._retries, blocking=True))
        except (DeadlineError, KeyboardInterrupt):
            run(self._transport.cancel(self.request_id))
            raise


class Client(BaseClient):
    """A client of one server. Threads may share it. It connects on first use; use it as a context manager.

    Args:
        url: ``grpc://host:port`` or ``http://host:port`` (``grpcs`` and ``https`` for TLS). At an HTTP address may be a
            Triton or a gateway; the first call finds out which. By default that of the environment variable
            ``NEURO_LATENT_URL``, else ``grpc://127.0.0.1:8001``.
        timeout: seconds for a whole call, its retries included, unless the call says otherwise. The server gets what is
            left of it as ``deadline_ms``, so that it does not write for nobody. Connecting may take five of them.
        retries: how often a call is repeated, after a short and growing wait, when the server cannot be reached or is
            too busy and nothing of an answer has come; 0 is never. A gateway that asks often is waited for as long as
            it says, where ``timeout`` allows it.
        headers: sent with every request, as HTTP headers or gRPC metadata.
        api_key: sent as ``Authorization: Bearer``. Over an unencrypted URL the network can read it.
        tls: whom to trust, and the client's own certificate, for ``grpcs`` and ``https``.
        transport: what to use instead of the network; see :mod:`neuro_latent_client.testing`.

    Raises:
        InvalidRequestError: a setting cannot be used.

    >>> with Client("grpc://127.0.0.1:8001", api_key="secret") as client:
    ...     print(client.optimize("Create a function").text)
    Create a function
    <BLANKLINE>
    In Python.
    >>> client
    Client('grpc://127.0.0.1:8001', timeout=30, retries=3, headers={'authorization': '***'})
    """

    _blocking = True

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Open streams end with an error."""
        self._closed = True
        run(self._transport.close())

    def optimize(
        self,
        raw_prompt: str,
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Optimization:
        """Ask for a better prompt and wait for all of it.

        Args:
            raw_prompt: the prompt to improve.
            options: how to write; see :class:`GenerationOptions`.
            timeout: seconds after which the client gives up; None is the client's.
            traceparent: the W3C trace that the call belongs to; None is OpenTelemetry's current one, if there is one.

        Raises:
            InvalidRequestError: the server, or the wire, refuses a value; the text names it.
            ServerUnavailableError: no server there, or it is too busy.
            DeadlineError: no whole answer within ``timeout`` seconds.
            AccessDeniedError: the server wants another API key or certificate.
            ModelNotFoundError: the server does not serve the model.
            ServerError: the server failed.

        >>> client.optimize("Create a function", max_length=64, seed=7).text
        'Create a function\\n\\nIn Python.'
        """
        request = self._request(protocol.UNARY_MODEL, make_inputs(raw_prompt, options), timeout, traceparent)
        return run(self._optimize(request))

    def optimize_many(
        self,
        raw_prompts: Iterable[str],
        *,
        concurrency: int = 8,
        on_progress: Callable[[Progress], None] | None = None,
        timeout: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[Optimization | NeuroLatentError]:
        """Ask for many, and get an answer or an error for each, in their order.

        Args:
            concurrency: how many are asked at a time.
            on_progress: called after each, in the order in which they end, by the caller's thread or task.
            timeout: seconds for each, from when its turn has come.

        Others are those of :meth:`optimize`.

        Raises:
            InvalidRequestError: ``concurrency`` is none. All that concerns one prompt is in its place in the list.

        >>> [answer.added for answer in client.optimize_many(["Create a function", "Explain this"])]
        ['In Python.', 'Say for whom it is.']
        """
        from concurrent.futures import ThreadPoolExecutor, as_completed

        prompts = list(raw_prompts)
        outcomes: dict[int, Optimization | NeuroLatentError] = {}

        def outcome(prompt: str) -> Optimization | NeuroLatentError:
            try:
                return self.optimize(prompt, timeout=timeout, traceparent=traceparent, **options)
            except NeuroLatentError as error:
                return error

        with ThreadPoolExecutor(check_count("concurrency", concurrency, 1)) as pool:
            futures = {pool.submit(outcome, prompt): index for index, prompt in enumerate(prompts)}
            try:
                for future in as_completed(futures):
                    index = futures[future]
                    outcomes[index] = future.result()
                    if on_progress:
                        on_progress(Progress(len(outcomes), len(prompts), index, outcomes[index]))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return [outcomes[index] for index in range(len(prompts))]

    def stream(
        self,
        raw_prompt: str,
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
        **options: Unpack[GenerationOptions],
    ) -> OptimizationStream:
        """Ask for a better prompt and get it piece by piece. Arguments and errors are those of :meth:`optimize`.

        The request is sent at once. Errors come from this call or from the iteration, so keep both in one ``try``. The
        request is repeated as long as nothing has come, and never after.

        >>> with client.stream("Create a function") as stream:
        ...     for piece in stream:
        ...         print(piece.text, end="", flush=True)
        Create a function
        <BLANKLINE>
        In Python.
        """
        request = self._request(protocol.STREAM_MODEL, make_inputs(raw_prompt, options), timeout, traceparent)
        stream = OptimizationStream(self, request)
        stream._send()
        return stream

    def feedback(
        self,
        answer: Optimization | str,
        rating: Literal[1, -1],
        *,
        timeout: float | None = None,
        traceparent: str | None = None,
        **details: Unpack[FeedbackDetails],
    ) -> Feedback:
        """Say whether an answer was good (1) or bad (-1); returns when the server has it on disk.

        Args:
            answer: the answer, or its request id with at least ``raw_prompt`` and ``enhanced_prompt``.
            details: what else to say; see :class:`FeedbackDetails`.

        Raises:
            InvalidRequestError: a text is missing or too long; the text names it.

        Others are those of :meth:`optimize`.

        >>> answer = client.optimize("Create a function")
        >>> client.feedback(answer, 1, edited_prompt="Write a typed Python function.").created
        True
        >>> client.feedback(answer, -1).created  # it is rated already
        False
        """
        inputs = make_feedback_inputs(answer, rating, details)
        return run(self._feedback(self._request(protocol.FEEDBACK_MODEL, inputs, timeout, traceparent)))

    def health(self, *, timeout: float = HEALTH_TIMEOUT_S) -> Health:
        """Whether the server is there and both models answer a prompt, of which one token is written. A server that
        cannot be reached is ``live=False``, no error.

        Args:
            timeout: seconds for each of the few small questions asked.

        >>> client.health().ready
        True
        """
        return run(check_health(self, timeout, OptimizationStream))

    def models(self, *, timeout: float = HEALTH_TIMEOUT_S) -> tuple[ServedModel, ...]:
        """All models that the server has, those of its pipelines' steps included: Triton's repository index.

        Raises:
            NeuroLatentError: as :meth:`optimize`; ``InvalidRequestError`` where it is a gateway; ``AccessDeniedError``
                where the index is restricted, as it is by ``neuro-latent serve``.

        >>> [model.name for model in client.models() if model.ready]
        ['neuro_latent_optimizer', 'neuro_latent_optimizer_stream', 'feedback']
        """
        return run(self._ask(INDEX, timeout))

    def adapters(self, *, timeout: float = HEALTH_TIMEOUT_S) -> tuple[ServedAdapter, ...]:
        """The adapters that the server has loaded, ``default`` first. One token is written to find out.

        Raises:
            NeuroLatentError: as :meth:`optimize`.

        >>> client.adapters()[0]
        ServedAdapter(name='default', version='fake-1')
        """
        return run(self._adapters(timeout))

    def load_adapters(self, *, timeout: float = LOAD_TIMEOUT_S) -> None:
        """Have the server load the newest set of adapters in its repository; returns when it answers from it.

        Requests go on meanwhile, each by the old set or by the new one. ``neuro-latent adapters`` writes such sets.

        Raises:
            NeuroLatentError: the set cannot be loaded, or the server does not load models for this client (a gateway
                for none); the old set stays. One that ``neuro-latent serve`` has started loads them for
                ``neuro-latent adapters``.
        """
        run(self._ask(LOAD_ADAPTERS, timeout))

    def _cancel_latest(self) -> None:
        """Cancel the request that was made last on the server, for a command that is interrupted."""
        if self._latest_id:
            run(self._transport.cancel(self._latest_id))
