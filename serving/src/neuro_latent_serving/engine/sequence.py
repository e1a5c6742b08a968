"""One text being written."""

from collections.abc import Sequence as Items
from dataclasses import dataclass

from neuro_latent_client.guard import guard
from neuro_latent_serving.tokenization import Detokenizer

STOP, LENGTH, DEADLINE, FALLBACK = "stop", "length", "deadline", "fallback"


@dataclass(frozen=True, slots=True)
class Event:
    """What one step added to one text.

    Attributes:
        sequence_index: which of the request's ``num_return_sequences`` texts.
        piece: new text; with ``replaces`` the whole text, in place of all pieces so far.
        score: mean log-probability of the tokens chosen so far, the end token included.
        generated_tokens: tokens written so far, the end token not counted.
        finish_reason: empty while the text goes on, else stop, length, deadline or fallback.
        text: the whole text, only when it is finished.
        replaces: see ``piece``.
    """

    sequence_index: int
    piece: str
    score: float
    generated_tokens: int
    finish_reason: str = ""
    text: str = ""
    replaces: bool = False


class Sequence:
    """Tokens, score and text stream of one answer.

    Args:
        index: which of the request's answers.
        raw_prompt: takes the place of an answer without any ink.
        guarded: whether :func:`~neuro_latent_client.guard.guard` looks at the finished text.
        max_length: the most tokens, the end token not counted.
        detokenizer: of the generator.
        eos: the end token.
    """

    def __init__(
        self,
        index: int,
        raw_prompt: str,
        max_length: int,
        detokenizer: Detokenizer,
        eos: int,
        guarded: bool = False,
    ) -> None:
        self.index = index
        self._guarded = guarded
        self.tokens: list[int] = []
        self._raw_prompt, self._max_length, self._eos = raw_prompt, max_length, eos
        self._detokenizer, self._stream = detokenizer, detokenizer.stream()
        self._logprobs, self._chosen = 0.0, 0
        self.finished = False

    def accept(self, tokens: Items[int], logprobs: Items[float]) -> Event | None:
        """Append the tokens of one step, up to the end; returns what there is to tell, if anything."""
        piece = ""
        for token, logprob in zip(tokens, logprobs, strict=True):
            self._logprobs += logprob
            self._chosen += 1
            if token == self._eos:
                return self.finish(STOP, piece)
            self.tokens.append(token)
            piece += self._stream.push(token)
            if len(self.tokens) >= self._max_length:
                return self.finish(LENGTH, piece)
        return Event(self.index, piece, self.score, len(self.tokens)) if piece else None

    @property
    def left(self) -> int:
        """How many tokens may still be written."""
        return self._max_length - len(self.tokens)

    def replace(self, tokens: Items[int], sum_logprob: float, chosen: int) -> None:
        """Take a whole text at once, as a search has found it."""
        self.tokens = list(tokens)
        self._logprobs, self._chosen = sum_logprob, chosen

    @property
    def score(self) -> float:
        """Mean log-probability of the chosen tokens; 0 before the first."""
        return self._logprobs / self._chosen if self._chosen else 0.0

    def finish(self, reason: str, pending: str = "") -> Event:
        """End the text. One that nobody could use is replaced by the raw prompt.

        Args:
            reason: why it ends.
            pending: the end of the streamed text that no event has carried yet.
        """
        self.finished = True
        text = self._detokenizer.decode(self.tokens)
        told = self._stream.text[: len(self._stream.text) - len(pending)]
        replaced = not text.strip()
        if self._guarded and not replaced:
            after = guard(self._raw_prompt, text)
            text, replaced = after.text, after.verdict == "replaced"
        if replaced:
            fallback = reason if reason == DEADLINE else FALLBACK
            return self._last(self._raw_prompt, fallback, self._raw_prompt, replaces=True)
        if text.startswith(told):
            return self._last(text[len(told) :], reason, text)
        return self._last(text, reason, text, replaces=True)

    def _last(self, piece: str, reason: str, text: str, replaces: bool = False) -> Event:
        return Event(self.index, piece, self.score, len(self.tokens), reason, text, replaces)
