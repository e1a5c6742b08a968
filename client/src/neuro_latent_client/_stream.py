"""Text that arrives piece by piece, and the whole answer put together from it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from ._answers import MODEL_VERSION, first
from ._failures import Failures
from ._transport import ResponseStream, Tensors
from .results import GeneratedSequence, Optimization, Piece


@dataclass(slots=True)
class _Draft:
    """A sequence that is being written."""

    text: str = ""
    score: float = 0.0
    generated_tokens: int = 0
    finish_reason: str = ""


class OptimizationStream:
    """An iterator of :class:`Piece`, and a context manager that cancels what is left when it is left early.

    Iterating raises the errors of :meth:`Client.optimize`. One thread iterates; any thread may :meth:`close`.

    >>> with client.stream("Create a function") as stream:  # doctest: +SKIP
    ...     for piece in stream:
    ...         print(piece.text, end="", flush=True)
    >>> stream.result.finish_reason  # doctest: +SKIP
    'stop'
    """

    def __init__(
        self,
        responses: ResponseStream,
        finish: Callable[[tuple[GeneratedSequence, ...], bool, str], Optimization],
        cancel: Callable[[], None],
        failures: Failures,
    ) -> None:
        self._responses = responses
        self._cancel = cancel
        self._finish = finish
        self._failures = failures
        self._drafts: dict[int, _Draft] = {}
        self._truncated = False
        self._model_version = ""
        self._over = False
        self._result: Optimization | None = None

    def __iter__(self) -> "OptimizationStream":
        return self

    def __next__(self) -> Piece:
        while not self._over:
            try:
                tensors = next(self._responses, None)
                if tensors is None:
                    self._end()
                    break
                piece = self._take(tensors)
            except BaseException:
                self.close()
                raise
            if piece.text or piece.replaces:
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
            self._cancel()
        self._responses.close()

    @property
    def result(self) -> Optimization:
        """The whole answer, once the iteration has ended by itself.

        Raises:
            RuntimeError: it has not, or it was closed or failed before its end.
        """
        if self._result is None:
            raise RuntimeError("the stream has no result: iterate it to its end first")
        return self._result

    def _take(self, tensors: Tensors) -> Piece:
        piece = Piece(
            text=first(tensors, "enhanced_prompt", str, self._failures),
            sequence_index=first(tensors, "sequence_index", int, self._failures),
            replaces=first(tensors, "replaces", bool, self._failures),
        )
        draft = self._drafts.setdefault(piece.sequence_index, _Draft())
        draft.text = piece.text if piece.replaces else draft.text + piece.text
        draft.score = first(tensors, "score", float, self._failures)
        draft.generated_tokens = first(tensors, "generated_tokens", int, self._failures)
        draft.finish_reason = first(tensors, "finish_reason", str, self._failures)
        self._truncated |= first(tensors, "truncated", bool, self._failures)
        self._model_version = first(tensors, MODEL_VERSION, str, self._failures)
        return piece

    def _end(self) -> None:
        if self._over:  # closed from another thread
            return
        drafts = [self._drafts[index] for index in sorted(self._drafts)]
        if not drafts or not all(draft.finish_reason for draft in drafts):
            raise self._failures.server("the stream ended before the text was whole")
        sequences = tuple(
            GeneratedSequence(draft.text, draft.score, draft.generated_tokens, draft.finish_reason) for draft in drafts
        )
        self._result = self._finish(sequences, self._truncated, self._model_version)
        self._over = True


def milliseconds_since(start_s: float) -> float:
    """Milliseconds since ``start_s``, a reading of ``time.perf_counter``."""
    return round((time.perf_counter() - start_s) * 1000, 3)
