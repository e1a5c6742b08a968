"""What a responder is, and how one is opened from what the command line says."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from neuro_latent_trainer.errors import TrainerError

Answered = tuple[str, str]
"""A prompt, and an answer to it."""

KEY_VARIABLE = "OPENAI_API_KEY"


class ResponderError(TrainerError):
    """A responder cannot be opened, or does not answer."""


@dataclass
class Usage:
    """What asking has cost so far.

    Attributes:
        asked: prompts, and prompts with an answer, that went to the model.
        cached: those that an earlier run had asked.
        prompt_tokens, answer_tokens: read and written by the model.
    """

    asked: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    def cost(self, price: tuple[float, float] | None) -> float | None:
        """In the currency of ``price``, which is for a million tokens read and written; None without a price."""
        if price is None:
            return None
        return (self.prompt_tokens * price[0] + self.answer_tokens * price[1]) / 1e6


class Responder(Protocol):
    """A language model.

    Attributes:
        identity: names the model and its version; answers of another one are never taken for its own.
        usage: what asking has cost so far.
    """

    identity: str

    @property
    def usage(self) -> Usage: ...

    def answers(self, prompts: Sequence[str], most_tokens: int, stage: str = "") -> list[str]:
        """The model's own answers, without sampling; a named stage has a progress bar.

        Raises:
            ResponderError: it does not answer.
        """

    def log_likelihoods(self, pairs: Sequence[Answered], stage: str = "") -> list[float]:
        """Log-likelihood of each answer behind its prompt, nats a token.

        Raises:
            ResponderError: the model does not tell.
        """


def default_cache() -> Path:
    """``responses.sqlite`` in ``$XDG_CACHE_HOME/neuro-latent`` or ``~/.cache/neuro-latent``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuro-latent" / "responses.sqlite"
