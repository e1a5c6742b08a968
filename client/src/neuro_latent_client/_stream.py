"""Text that arrives piece by piece, and the whole answer put together from it."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from ._answers import MODEL_VERSION, first
from ._failures import Failures
from ._request import InferRequest
from ._retry import retried
from ._transport import ResponseStream, Tensors, Transport
from .results import GeneratedSequence, Optimization, Piece


@dataclass(slots=True)
class _Draft:
    """A sequence that is being written."""

    text: str = ""
    added: str = ""
    score: float = 0.0
    generated_tokens: int = 0
    finish_reason: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What a stream is made of.

    Attributes:
        finish: makes the whole answer from sequences, ``truncated``, model version and the time of the first piece.
    """

    request: InferRequest
    retries: int
    failures: Failures
    finish: Callable[[tuple[GeneratedSequence, ...], bool, str, float | None], Optimization]


class Stream:
    """What both kinds of stream share: the text so far, and the answer."""

    def __init__(self, plan: StreamPlan) -> None:
        self._plan = plan
        self._drafts: dict[int, _Draft] = {}
        self._truncated = False
        self._model_version = ""
        self._first_piece_ms: float | None = None
        self._answered = False  # something has come, so nothing is asked again
        self._over = False
        self._result: Optimization | None = None

    @property
    def request_id(self) -> str:
        """The id that the request carries."""
        return self._plan.request.request_id

    @property
    def result(self) -> Optimization:
        """The whole answer, once the iteration has ended by itself.

        Raises:
            RuntimeError: it has not, or it was closed or failed before its end.
        """
        if self._result is None:
            raise RuntimeError("the stream has no result: iterate it to its end first")
        return self._result

    def _take(self, tensors: Tensors | None) -> Piece | None:
        """What a response brings to show, if anything. None ends the stream."""
        if self._over:  # closed meanwhile
            return None
        self._answered = True
        if tensors is None:
            self._end()
            return None
        failures = self._plan.failures
        piece = Piece(
            text=first(tensors, "enhanced_prompt", str, failures),
            sequence_index=first(tensors, "sequence_index", int, failures),
        )
        draft = self._drafts.setdefault(piece.sequence_index, _Draft())
        draft.text += piece.text
        draft.added = first(tensors, "added", str, failures) or draft.added
        draft.score = first(tensors, "score", float, failures)
        draft.generated_tokens = first(tensors, "generated_tokens", int, failures)
        draft.finish_reason = first(tensors, "finish_reason", str, failures)
        draft.reason = first(tensors, "reason", str, failures)
        self._truncated |= first(tensors, "truncated", bool, failures)
        self._model_version = first(tensors, MODEL_VERSION, str, failures)
        if not piece.text:
            return None
        if self._first_piece_ms is None:
            self._first_piece_ms = self._plan.request.elapsed_ms
        return piece

    def _end(self) -> None:
        drafts = [self._drafts[index] for index in sorted(self._drafts)]
        if not drafts or not all(draft.finish_reason for draft in drafts):
            raise self._plan.failures.server("the stream ended before the text was whole")
        sequences = tuple(
            GeneratedSequence(
                draft.text, draft.added, draft.score, draft.generated_tokens, draft.finish_reason, draft.reason
            )
            for draft in drafts
        )
        self._result = self._plan.finish(sequences, self._truncated, self._model_version, self._first_piece_ms)
        self._over = True


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

    def __init__(self, transport: Transport, plan: StreamPlan) -> None:
        super().__init__(plan)
        self._transport = transport
        self._responses: ResponseStream = retried(transport.stream, plan.request, plan.retries)
        self._failed = False

    def __iter__(self) -> "OptimizationStream":
        return self

    def __next__(self) -> Piece:
        while not self._over:
            try:
                piece = self._take(self._next())
            except BaseException:
                self.close()
                raise
            if piece is not None:
                return piece
        raise StopIteration

    def __enter__(self) -> "OptimizationStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop. What the server has not written yet is cancelled there; a stream that has ended is left as it is."""
        left_early = not self._over
        self._over = True
        if left_early:
            self._transport.cancel(self.request_id)
        self._responses.close()

    def _next(self) -> Tensors | None:
        if self._answered:
            return next(self._responses, None)
        return retried(self._first, self._plan.request, self._plan.retries)

    def _first(self, request: InferRequest) -> Tensors | None:
        """The first response; the request is sent again where the last one has failed."""
        if self._failed and not self._over:
            self._responses.close()
            self._responses = self._transport.stream(request)
        self._failed = True
        return next(self._responses, None)
