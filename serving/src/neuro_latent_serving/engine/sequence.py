"""One sequence being decoded, and the part of its text that is served."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from neuro_latent_core.form import join
from neuro_latent_core.guard import BLANK, NOT_SURE, UNFINISHED, rejects
from neuro_latent_core.guard.sentences import parts, whole_sentences
from neuro_latent_serving.engine.gate import OPEN, GateOutput
from neuro_latent_serving.tokenization import Detokenizer

log = logging.getLogger(__name__)

STOP, LENGTH, DEADLINE, UNCHANGED, WITHHELD = "stop", "length", "deadline", "unchanged", "withheld"
NOT_CHECKED = "not checked"
"""The guard has failed."""


@dataclass(frozen=True, slots=True)
class Event:
    """What one step added to one sequence.

    Attributes:
        sequence_index: which of the request's ``num_return_sequences``.
        piece: new text; the pieces of a sequence, joined, are its text.
        score: confidence in what the model has written so far, in [0, 1], 0 before its first token; at the end, in what
            is served of it, or would be.
        generated_tokens: tokens written so far, the end token not counted.
        finish_reason: empty while it is unfinished, else stop, length, deadline, unchanged or withheld.
        text: the whole text, only when it is finished.
        added: in the complement form, the part of ``text`` after the prompt and the separator.
        reason: why what the model wrote was withheld.
        cached: it was kept from an earlier request.
    """

    sequence_index: int
    piece: str
    score: float
    generated_tokens: int
    finish_reason: str = ""
    text: str = ""
    added: str = ""
    reason: str = ""
    cached: bool = False


class OutputSequence:
    """Tokens, confidence and text stream of one answer.

    A complement, and everything while the guard is on, is held back until it is finished and has passed: nothing that
    was sent is ever taken back. A rewrite that is not guarded is streamed as it is decoded. A complement ends before
    the first sentence at whose end the confidence is too low; nothing is decoded after that.

    Args:
        index: which of the request's answers.
        raw_prompt: the answer where nothing is served of what the model writes.
        max_length: the most tokens, the end token not counted.
        detokenizer: of the generator.
        eos: the end token.
        guarded: whether a cut text ends with its last whole sentence, and
            :func:`~neuro_latent_core.guard.rejects` looks at it.
        gate: of the prompt.
        min_confidence: the lowest with which a text that was held back is served.
    """

    def __init__(
        self,
        index: int,
        raw_prompt: str,
        max_length: int,
        detokenizer: Detokenizer,
        eos: int,
        *,
        guarded: bool = False,
        gate: GateOutput = OPEN,
        min_confidence: float = 0.0,
    ) -> None:
        self.index = index
        self.tokens: list[int] = []
        self.finished = False
        self._raw_prompt, self._max_length, self._eos = raw_prompt, max_length, eos
        self._detokenizer, self._stream = detokenizer, detokenizer.stream()
        self._guarded, self._gate, self._min_confidence = guarded, gate, min_confidence
        self._complements = gate.form == "complement"
        self._held = guarded or self._complements
        self._emitted = ""
        self._logprobs, self._chosen = 0.0, 0
        self._sums: list[float] = []

    def begin(self) -> Event | None:
        """The event before the first token: in the complement form, the raw prompt."""
        return self._emit(self._raw_prompt) if self._complements else None

    def accept(self, tokens: Sequence[int], logprobs: Sequence[float]) -> Event | None:
        """Append the tokens of one step, up to the end; returns the event for the caller, if there is one."""
        for token, logprob in zip(tokens, logprobs, strict=True):
            self._logprobs += logprob
            self._chosen += 1
            if token == self._eos:
                return self.finish(STOP)
            self.tokens.append(token)
            self._sums.append(self._logprobs)
            if self._complements and self.score < self._min_confidence and self._ends_with_sentence():
                return self.finish(STOP)
            if not self._held:
                self._stream.push(token)
            if len(self.tokens) >= self._max_length:
                return self.finish(LENGTH)
        piece = self._stream.text.strip()[len(self._emitted) :] if not self._held else ""
        return self._emit(piece) if piece else None

    def _ends_with_sentence(self) -> bool:
        return any(parts(self.tokens, [len(self.tokens)], self._detokenizer.decode))

    @property
    def left(self) -> int:
        """How many tokens may still be written."""
        return self._max_length - len(self.tokens)

    def replace(self, tokens: Sequence[int], sum_logprob: float, chosen: int) -> None:
        """Take all tokens at once, as a beam search has found them."""
        self.tokens = list(tokens)
        self._logprobs, self._chosen = sum_logprob, chosen

    @property
    def score(self) -> float:
        """Confidence in what is written so far; 0 before the first token."""
        return self._gate.confidence(self._logprobs / self._chosen) if self._chosen else 0.0

    def finish(self, ended: str) -> Event:
        """End the sequence, and decide what of it is served.

        Args:
            ended: why it ends: stop, length or deadline.
        """
        self.finished = True
        if ended == DEADLINE and not self._chosen:
            return self._last(self._emitted or self._raw_prompt, DEADLINE)
        written = self._detokenizer.decode(self.tokens).strip()
        if not self._held:
            text = written if written.startswith(self._emitted) else self._stream.text.strip()
            return self._last(text, ended) if text else self.withhold(BLANK)
        if self._complements and not written and ended == STOP:
            return self._last(self._raw_prompt, UNCHANGED)
        text = whole_sentences(written) if self._guarded and ended != STOP else written
        reason = self._reason(written, text)
        if self._complements:
            text = self._shorter() if reason else text
            return self._last(join(self._raw_prompt, text), ended, added=text) if text else self.withhold(reason)
        return self.withhold(reason) if reason else self._last(text, ended)

    def _shorter(self) -> str:
        """The longest part of a complement that ends with a sentence and may be served, "" for none.

        The score is that of the part from then on. A search tells the probability of the whole alone.
        """
        sure = [
            count
            for count in range(len(self._sums) - 1, 0, -1)
            if self._gate.confidence(self._sums[count - 1] / count) >= self._min_confidence
        ]
        for count, text in parts(self.tokens, sure, self._detokenizer.decode):
            if not (self._guarded and self._rejects(text)):
                self._logprobs, self._chosen = self._sums[count - 1], count
                return text
        return ""

    def _reason(self, written: str, text: str) -> str:
        """Why a text that was held back is not served; "" where it is."""
        if self.score < self._min_confidence:
            return NOT_SURE
        if not text:
            return UNFINISHED if written else BLANK
        return self._rejects(text) if self._guarded else ""

    def _rejects(self, text: str) -> str:
        """The guard's reason. Where one of its rules fails, this sequence is withheld and all others continue."""
        try:
            return rejects(self._raw_prompt, text, self._gate.form)
        except Exception as error:  # not its message or trace, which may quote the prompt
            log.error("the guard has failed: %s", type(error).__name__)
            return NOT_CHECKED

    def withhold(self, reason: str) -> Event:
        """End the sequence with the raw prompt as the answer."""
        self.finished = True
        return self._last(self._raw_prompt, WITHHELD, reason=reason)

    def _last(self, text: str, ended: str, *, added: str = "", reason: str = "") -> Event:
        piece = text[len(self._emitted) :]
        return Event(self.index, piece, self.score, len(self.tokens), ended, text, added, reason)

    def _emit(self, piece: str) -> Event:
        self._emitted += piece
        return Event(self.index, piece, self.score, len(self.tokens))
