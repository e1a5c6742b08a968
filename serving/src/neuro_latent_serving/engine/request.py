"""What a caller submits."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from neuro_latent_core.errors import PublicError
from neuro_latent_core.guard.language import is_english
from neuro_latent_core.options import RequestOptions
from neuro_latent_serving.byte_cache import digest
from neuro_latent_serving.engine.contract import Floats, Ids
from neuro_latent_serving.engine.gate import GateOutput
from neuro_latent_serving.engine.sequence import Event


@dataclass(eq=False)  # compared by identity: arrays have no single truth value
class Request:
    """One prompt to decode.

    Attributes:
        raw_prompt: complements are appended to it and drafts copied from it; the answer where nothing is served.
        hidden_QD: T5 encoder states.
        mask_Q: 1 where ``hidden_QD`` is real.
        options: how to decode.
        on_event: called on the engine's thread with each piece; must be quick.
        on_end: called on the engine's thread exactly once, after the last event, with the error if there was one.
        is_cancelled: asked before every step; once true the request leaves.
        gate: the form of what is written, and how sure the adapter is.
        arrived: when it came, on the monotonic clock.
        events: what it was answered with so far, where that may be kept.
        asked: when its caller's request came to the server, on the same clock, from which its deadline counts; None is
            ``arrived``.
    """

    raw_prompt: str
    hidden_QD: Floats
    mask_Q: Ids
    options: RequestOptions
    on_event: Callable[[Event], None]
    on_end: Callable[[PublicError | None], None]
    is_cancelled: Callable[[], bool] = lambda: False
    gate: GateOutput = field(default_factory=GateOutput)
    arrived: float = field(default_factory=time.monotonic)
    asked: float | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The slots that it takes: a row for each sequence or beam."""
        return max(self.options.num_beams, self.options.num_return_sequences)

    @cached_property
    def foreign(self) -> bool:
        """Whether it asks for a complement of a prompt in another language than the model's."""
        return self.gate.form == "complement" and not is_english(self.raw_prompt)

    @cached_property
    def key(self) -> bytes | None:
        """Of all that its answer depends on; None where the same request may be answered otherwise, for it samples."""
        if not self.options.greedy:
            return None
        options = replace(self.options, seed=None, deadline_ms=0)
        return digest(self.hidden_QD, self.mask_Q, self.raw_prompt, repr(options), repr(self.gate))

    def overdue(self, now: float) -> bool:
        """Whether its deadline has passed."""
        limit, since = self.options.deadline_ms, self.arrived if self.asked is None else self.asked
        return bool(limit) and (now - since) * 1000 >= limit
