"""The order in which a server's health is asked for, and what is said of it."""

import math
import time
from collections.abc import Iterator
from typing import Any

from neuro_latent_core import protocol
from neuro_latent_core.limits import MAX_DEADLINE_MS

from ._transport import LIVE, READY, STREAM_READY, UNARY_READY, UNARY_VERSIONS, Question
from .errors import NeuroLatentError
from .options import GenerationOptions
from .results import Health

HEALTH_TIMEOUT_S = 5.0

PROBE_PROMPT = "Create a function"


def probe_options(timeout_s: float) -> GenerationOptions:
    """Options of a prompt that only shows whether an answer comes: one token, and half of the time to wait in queues.

    What is late is answered without being decoded, so that a busy server answers it too.
    """
    return {"max_length": 1, "deadline_ms": min(MAX_DEADLINE_MS, math.ceil(timeout_s * 500))}


class HealthCheck:
    """Whoever has a transport asks :meth:`questions`, sets ``answer`` after each, and tells :meth:`failed` of errors.

    Then comes a prompt through each of the two models: Triton calls a model ready whose process has died.
    """

    def __init__(self, url: str) -> None:
        self.answer: Any = None
        self.problem = ""
        self._start_s = time.monotonic()
        self._url = url
        self._live = False
        self._model_version: str | None = None

    def questions(self) -> Iterator[Question[Any]]:
        """One question after the other, until something is wrong."""
        for question, otherwise in (
            (LIVE, f"{self._url} answers, but not as a live Triton server"),
            (UNARY_READY, f"model {protocol.UNARY_MODEL} is not ready"),
            (STREAM_READY, f"model {protocol.STREAM_MODEL} is not ready"),
            (READY, "the server is not ready"),
        ):
            yield question
            if not self.answer:
                self.problem = otherwise
                return
            self._live = True
        yield UNARY_VERSIONS
        self._model_version = self.answer[-1] if self.answer else None

    @property
    def goes_on(self) -> bool:
        """Whether nothing was wrong so far."""
        return self._live and not self.problem

    def failed(self, error: NeuroLatentError) -> None:
        """Note what is wrong; a queue that is full is not, for only a server that works has one."""
        if protocol.TOO_BUSY not in str(error):
            self.problem = str(error)

    def result(self) -> Health:
        elapsed_ms = round((time.monotonic() - self._start_s) * 1000, 3)
        return Health(self._url, self._live, self.goes_on, self._model_version, self.problem, elapsed_ms)
