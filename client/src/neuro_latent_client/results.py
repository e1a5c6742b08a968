"""What a client gives back: frozen records."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from .errors import NeuroLatentError


@dataclass(frozen=True, slots=True)
class _Record:
    """What all of them can do."""

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as ``--json`` of the command line prints them; those of sequences too."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class GeneratedSequence(_Record):
    """One enhanced prompt.

    Attributes:
        text: the whole prompt to use.
        added: what the model put behind the raw prompt; "" where it added nothing, or rewrote the prompt as a whole.
        score: the confidence, from 0 to 1, in what the model wrote, also where that was withheld.
        finish_reason: ``stop``, ``length`` or ``deadline``: the model ended, or was ended; ``unchanged``: it had
            nothing to add; ``withheld``: its text was kept back, and ``text`` is the raw prompt.
        reason: why it was withheld, else "".
    """

    text: str
    added: str
    score: float
    generated_tokens: int
    finish_reason: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Optimization(_Record):
    """The answer to one raw prompt. It has the fields of its first sequence too.

    Attributes:
        truncated: the raw prompt was longer than what the models read.
        cached: the server had kept the whole answer from an earlier request.
        model_version: the version of the adapter that answered, as the server names it.
        elapsed_ms: from the call to the whole answer, measured by the client, in milliseconds.
        request_id: the id of the request, to name the answer by in feedback; that of the gateway's own where it asked.
        transport: ``grpc`` or ``http``, ``rest`` by a gateway, or ``fake``.
        first_piece_ms: from the call to the first piece of text, in milliseconds; None where it was not streamed.
    """

    raw_prompt: str
    sequences: tuple[GeneratedSequence, ...]
    truncated: bool
    model_version: str
    request_id: str
    elapsed_ms: float
    transport: str
    first_piece_ms: float | None = None
    cached: bool = False

    @property
    def text(self) -> str:
        return self.sequences[0].text

    @property
    def added(self) -> str:
        return self.sequences[0].added

    @property
    def score(self) -> float:
        return self.sequences[0].score

    @property
    def generated_tokens(self) -> int:
        return self.sequences[0].generated_tokens

    @property
    def finish_reason(self) -> str:
        return self.sequences[0].finish_reason

    @property
    def reason(self) -> str:
        return self.sequences[0].reason

    @property
    def unchanged(self) -> bool:
        """Whether the text is the raw prompt: nothing was added, or it was withheld."""
        return self.text == self.raw_prompt


@dataclass(frozen=True, slots=True)
class Piece(_Record):
    """A piece of streamed text; nothing that was sent is ever taken back.

    Attributes:
        sequence_index: which of the ``num_return_sequences`` it belongs to, from 0.
    """

    text: str
    sequence_index: int


@dataclass(frozen=True, slots=True)
class Feedback(_Record):
    """What the server says of feedback: it is on disk.

    Attributes:
        feedback_id: names it in the server's store.
        created: False where feedback with the same idempotency key was there already; nothing was stored anew.
        request_id: of the answer that was rated.
        elapsed_ms: from the call to its answer, in milliseconds.
    """

    feedback_id: str
    created: bool
    request_id: str
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class Progress:
    """One prompt of many is done.

    Attributes:
        done: how many are, this one included.
        total: how many there are.
        index: which one this is, from 0.
        outcome: its answer, or the error instead.
    """

    done: int
    total: int
    index: int
    outcome: Optimization | NeuroLatentError


@dataclass(frozen=True, slots=True)
class ServedModel(_Record):
    """One version of one model that a server has.

    Attributes:
        problem: why it is not ready, "" when it is.
    """

    name: str
    version: str
    ready: bool
    problem: str


@dataclass(frozen=True, slots=True)
class ServedAdapter(_Record):
    """One adapter that a server has loaded.

    Attributes:
        name: to choose it by, as the option ``adapter``; ``default`` answers where none is chosen.
        version: what its answers bear as ``model_version``.
    """

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Health(_Record):
    """The state of a server.

    Attributes:
        live: a Triton server answers, or a gateway.
        ready: it is ready, and so are both models of the Neuro-Latent Optimizer.
        model_version: Triton's newest version number of the unary model, None when it cannot be had, as
            from a gateway. (The versions of the adapters: :meth:`Client.adapters`.)
        problem: why it is not ready, "" when it is.
        elapsed_ms: the time the check took, in milliseconds.
    """

    url: str
    live: bool
    ready: bool
    model_version: str | None
    problem: str
    elapsed_ms: float
